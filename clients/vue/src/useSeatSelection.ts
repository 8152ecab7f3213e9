import { computed, getCurrentInstance, onActivated, onDeactivated, onMounted, shallowRef, toValue, watch } from "vue";
import type { ComputedRef, MaybeRefOrGetter, ShallowRef } from "vue";
import type { Hold, Room, Seat, SeatSelectionClient, Status } from "@seatws/client";
import { SeatSession, identityOf, seatOf } from "../../seatmap/src/index.js";
import type { Notice, SessionOptions } from "../../seatmap/src/index.js";

export interface SeatSelection {
  /** For everything else: `client.value.remaining(seat)`, `client.value.latency`, `client.value.on(…)`. */
  readonly client: ComputedRef<SeatSelectionClient>;
  readonly roomId: ComputedRef<string | null>;
  /** Null before it is joined for the first time, and when the room was refused. `room.joined`: it is live. */
  readonly room: Readonly<ShallowRef<Room | null>>;
  readonly status: Readonly<ShallowRef<Status>>;
  /** My seats in this room. */
  readonly mine: ComputedRef<readonly Seat[]>;
  /** The latest refusal or warning, for the visitor. */
  readonly notice: Readonly<ShallowRef<Notice | null>>;
  readonly dismissNotice: () => void;
  /** One seat of the room, free ones too. Reactive where it is called in a template or a computed. */
  readonly seat: (seatId: string) => Seat;
  /** Select a free seat, give back one's own. Never rejects: a refusal becomes the `notice`. */
  readonly toggleSeat: (seatId: string) => void;
  readonly selectSeat: (seatId: string, userInfo?: object) => Promise<Hold>;
  /** All of them or none. */
  readonly selectSeats: (seatIds: readonly string[], userInfo?: object) => Promise<Hold[]>;
  readonly releaseSeat: (seatId: string) => Promise<unknown>;
}

/**
 * The seats of a room, live. Connects when the component is mounted (in an effect scope of its own: at
 * once), follows the room and the options, and leaves nothing behind when the scope ends. Under
 * `<KeepAlive>` it rests while the component is out of sight.
 *
 * @param roomId null: connected, but in no room yet
 */
export function useSeatSelection(
  roomId: MaybeRefOrGetter<string | null | undefined>,
  options: MaybeRefOrGetter<SessionOptions> = {},
): SeatSelection {
  const given = computed(() => toValue(options));
  const id = computed(() => toValue(roomId) ?? null);
  const session = shallowRef(new SeatSession(given.value));
  const room = shallowRef<Room | null>(null);
  const status = shallowRef(session.value.status());
  const notice = shallowRef<Notice | null>(null);
  const running = shallowRef(false);

  function read(): void {
    room.value = session.value.room(id.value);
    status.value = session.value.status();
    notice.value = session.value.notice;
  }

  watch(() => ({ ...given.value }), (now, before) => {
    const isOther = identityOf(now) !== identityOf(before) || now.client !== before.client;
    if (isOther) session.value = new SeatSession(now);
    else session.value.update(now);
  });
  watch([session, running], ([now, runs], _, onCleanup) => {
    const off = now.subscribe(read);
    const stop = runs ? now.start() : () => {};
    onCleanup(() => {
      off();
      stop();
    });
    read();
  }, { immediate: true });
  watch([session, id, running], ([now, to, runs], _, onCleanup) => {
    if (runs) onCleanup(now.enter(to));
    read();
  }, { immediate: true });

  const start = () => void (running.value = true);
  const stop = () => void (running.value = false);
  if (getCurrentInstance()) {
    onMounted(start); // never on a server
    onActivated(start);
    onDeactivated(stop);
  } else start();

  return {
    client: computed(() => session.value.client),
    roomId: id,
    room,
    status,
    mine: computed(() => room.value?.mine ?? []),
    notice,
    dismissNotice: () => session.value.dismiss(),
    seat: (seatId) => seatOf(room.value, seatId),
    toggleSeat: (seatId) => session.value.toggle(seatId),
    selectSeat: (seatId, userInfo) => session.value.select(seatId, userInfo),
    selectSeats: (seatIds, userInfo) => session.value.selectAll(seatIds, userInfo),
    releaseSeat: (seatId) => session.value.release(seatId),
  };
}
