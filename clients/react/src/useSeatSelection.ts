import { useCallback, useEffect, useMemo, useSyncExternalStore } from "react";
import type { Hold, Room, Seat, SeatSelectionClient, Status } from "@seatws/client";
import { SeatSession, identityOf, seatOf } from "../../seatmap/src/index.js";
import type { Notice, SessionOptions } from "../../seatmap/src/index.js";

export interface SeatSelection {
  /** For everything else: `client.remaining(seat)`, `client.latency`, `client.on(…)`. */
  readonly client: SeatSelectionClient;
  readonly roomId: string | null;
  /** Null before it is joined for the first time, and when the room was refused. `room.joined`: it is live. */
  readonly room: Room | null;
  readonly status: Status;
  /** My seats in this room, in the order of their selection. */
  readonly mine: readonly Seat[];
  /** The latest refusal or warning, for the visitor. */
  readonly notice: Notice | null;
  readonly dismissNotice: () => void;
  /** One seat of the room, free ones too. */
  readonly seat: (seatId: string) => Seat;
  /** Select a free seat, give back one's own. Never rejects: a refusal becomes the `notice`. */
  readonly toggleSeat: (seatId: string) => void;
  readonly selectSeat: (seatId: string, userInfo?: object) => Promise<Hold>;
  /** All of them or none. */
  readonly selectSeats: (seatIds: readonly string[], userInfo?: object) => Promise<Hold[]>;
  readonly releaseSeat: (seatId: string) => Promise<unknown>;
}

const NONE: readonly Seat[] = [];

/**
 * The seats of a room, live. Connects when the component is mounted, follows `roomId` and the options,
 * and leaves nothing behind when it is unmounted. Options may be written in place: another object with
 * the same values changes nothing.
 *
 * @param roomId null: connected, but in no room yet
 */
export function useSeatSelection(roomId: string | null | undefined, options: SessionOptions = {}): SeatSelection {
  const key = identityOf(options);
  // `update` takes over what is not in the key.
  const session = useMemo(() => new SeatSession(options), [key, options.client]);
  useEffect(() => session.update(options));
  useEffect(() => session.start(), [session]);
  useEffect(() => session.enter(roomId), [session, roomId]);

  const subscribe = useCallback((tell: () => void) => session.subscribe(tell), [session]);
  const room = useSyncExternalStore(subscribe, () => session.room(roomId), () => null);
  const readStatus = () => session.status();
  const status = useSyncExternalStore(subscribe, readStatus, readStatus);
  const notice = useSyncExternalStore(subscribe, () => session.notice, () => null);

  const actions = useMemo(
    () => ({
      client: session.client,
      dismissNotice: () => session.dismiss(),
      toggleSeat: (seatId: string) => session.toggle(seatId),
      selectSeat: (seatId: string, userInfo?: object) => session.select(seatId, userInfo),
      selectSeats: (seatIds: readonly string[], userInfo?: object) => session.selectAll(seatIds, userInfo),
      releaseSeat: (seatId: string) => session.release(seatId),
    }),
    [session],
  );
  return useMemo(
    () => ({
      ...actions,
      roomId: roomId ?? null,
      room,
      status,
      mine: room?.mine ?? NONE,
      notice,
      seat: (seatId: string) => seatOf(room, seatId),
    }),
    [actions, roomId, room, status, notice],
  );
}
