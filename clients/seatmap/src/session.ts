/**
 * What the React hook and the Vue composable have in common: one client, started and stopped with a
 * component, in the room that the component shows, and the latest notice for the visitor.
 */
import { SeatError, SeatSelectionClient } from "@seatws/client";
import type { Hold, Options, Room, Seat, Status } from "@seatws/client";
import { rememberedClientId } from "./identity.js";
import { enterRoom } from "./rooms.js";
import { seatOf } from "./seats.js";

export interface SessionOptions extends Options {
  /** Where the server is. Default: `ws://localhost:8001`. */
  url?: string;
  /**
   * A client of your own, to share one connection between several maps. It is yours to connect and to
   * disconnect; `url` and the client's options are not looked at then.
   */
  client?: SeatSelectionClient | null;
  /** What others may see with the seats that are selected. Default: `{}`. */
  userInfo?: object;
  /** Told of everything that was refused or failed, also what mends itself. */
  onError?: (error: SeatError) => void;
}

/** The latest thing that a visitor should hear of; it stays until the next one, or until dismissed. */
export type Notice =
  /** A seat was refused, or could not be given back. */
  | { readonly kind: "refused"; readonly error: SeatError; readonly seatIds: readonly string[] }
  /** A hold ends soon. */
  | { readonly kind: "expiring"; readonly seatIds: readonly string[]; readonly remaining: number }
  /** A hold has ended by itself. */
  | { readonly kind: "expired"; readonly seatIds: readonly string[] }
  /** The room or the connection was refused for good. */
  | { readonly kind: "failed"; readonly error: SeatError; readonly seatIds: readonly [] };

/** Options that a client can't change in its life: with another value of these there is another client. */
export function identityOf(options: SessionOptions): string {
  const { url, clientId, tokenVia, credentials, requestTimeout, expiringMs } = options;
  return JSON.stringify([url, clientId, tokenVia, credentials, requestTimeout, expiringMs]);
}

/** Milliseconds: a hold that goes with less than this left has expired, rather than been given back. */
const EXPIRED_BELOW = 1_500;
const SEAT_REQUESTS = new Set(["select_seat", "select_seats", "release_seat"]);

export class SeatSession {
  readonly client: SeatSelectionClient;
  roomId: string | null = null;
  notice: Notice | null = null;
  #options: SessionOptions;
  #owned: boolean;
  #running = false;
  #mine: ReadonlyMap<string, Seat> = new Map();
  #listeners = new Set<() => void>();
  #askToken = (why: { readonly renew: boolean }) => {
    const { token } = this.#options;
    return typeof token === "function" ? token(why) : (token ?? "");
  };

  /** Touches nothing yet, so it may be made where there is no browser, or for nothing. */
  constructor(options: SessionOptions = {}) {
    this.#options = options;
    this.#owned = !options.client;
    const { url, client, userInfo: _info, onError: _tell, ...rest } = options;
    const token = typeof options.token === "function" ? this.#askToken : options.token;
    const clientId = options.clientId ?? rememberedClientId();
    this.client = client ?? new SeatSelectionClient(url, { ...rest, clientId, token });
  }

  /** Connect. @returns stops it again; both may be called as often as one likes */
  start(): () => void {
    const { client } = this;
    this.#running = true;
    const offs = [
      client.on("change", ({ room_id, room }) => this.#changed(room_id, room)),
      client.on("status", () => this.#notify()),
      client.on("error", (error) => this.#failed(error)),
      client.on("expiring", ({ room_id, seat, remaining }) => {
        if (room_id === this.roomId) this.#tell({ kind: "expiring", seatIds: [seat.seat_id], remaining });
      }),
    ];
    if (this.#owned) client.connect();
    return () => {
      this.#running = false;
      for (const off of offs) off();
      if (this.#owned) client.disconnect();
      this.#notify();
    };
  }

  /** Show this room. @returns leaves it; holds in it stay */
  enter(roomId: string | null | undefined): () => void {
    this.roomId = roomId ?? null;
    this.notice = null;
    this.#mine = mineOf(this.room(roomId));
    const leave = roomId ? enterRoom(this.client, roomId) : () => {};
    this.#notify();
    return () => {
      if (this.roomId === roomId) this.roomId = null;
      leave();
      this.#notify();
    };
  }

  /** Take over options that a client can change in its life: the token, `userInfo`, `onError`. */
  update(options: SessionOptions): void {
    const before = this.#options;
    this.#options = options;
    const { token } = options;
    // A function is often written in place, so it is another one each time: only its latest is asked.
    const same = token === before.token || (typeof token === "function" && typeof before.token === "function");
    if (!this.#owned || same) return;
    this.client.setToken(typeof token === "function" ? this.#askToken : (token ?? null));
    if (!this.#running) return;
    this.client.connect(); // if the old one was refused for good
    if (this.roomId && !this.client.rooms.has(this.roomId)) this.client.joinRoom(this.roomId);
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** The same object until something changes. */
  room(roomId: string | null | undefined): Room | null {
    return (roomId && this.client.rooms.get(roomId)) || null;
  }

  /** The same object until something changes. */
  status(): Status {
    return this.client.status;
  }

  select(seatId: string, userInfo = this.#options.userInfo): Promise<Hold> {
    this.dismiss();
    return this.client.selectSeat(seatId, userInfo, this.#here);
  }

  selectAll(seatIds: readonly string[], userInfo = this.#options.userInfo): Promise<Hold[]> {
    this.dismiss();
    return this.client.selectSeats(seatIds, userInfo, this.#here);
  }

  release(seatId: string): Promise<unknown> {
    this.dismiss();
    return this.client.releaseSeat(seatId, this.#here);
  }

  /** What a click on a seat does: select it, or give it back. Never rejects; a refusal is the `notice`. */
  toggle(seatId: string): void {
    const { state, pending } = seatOf(this.room(this.roomId), seatId);
    if (pending) return; // a double click
    (state === "mine" ? this.release(seatId) : this.select(seatId)).catch(() => {});
  }

  dismiss(): void {
    if (this.notice) this.#tell(null);
  }

  /** Never left out: a shared client may be in other rooms, too. The server refuses "". */
  get #here(): string {
    return this.roomId ?? "";
  }

  #changed(roomId: string, room: Room | null): void {
    if (roomId === this.roomId) {
      if (room?.joined && this.notice?.kind === "failed") this.notice = null;
      const before = this.#mine;
      this.#mine = mineOf(room);
      const lost = [...before.values()].filter((seat) => room?.joined && this.#expired(seat));
      if (lost.length) this.#tell({ kind: "expired", seatIds: lost.map((seat) => seat.seat_id) });
    }
    this.#notify();
  }

  #expired(seat: Seat): boolean {
    const left = this.client.remaining(seat);
    return !this.#mine.has(seat.seat_id) && !seat.pending && left !== null && left < EXPIRED_BELOW;
  }

  #failed(error: SeatError): void {
    try {
      this.#options.onError?.(error);
    } catch (mistake) {
      console.error(mistake);
    }
    const { request, room_id: roomId, seat_id: seatId, conflicts, retryable } = error;
    if (roomId !== undefined && roomId !== this.roomId) return;
    if (request && SEAT_REQUESTS.has(request)) {
      const seatIds = conflicts?.map((each) => each.seat_id) ?? (seatId ? [seatId] : []);
      this.#tell({ kind: "refused", error, seatIds });
    } else if (!retryable) {
      this.#tell({ kind: "failed", error, seatIds: [] });
    }
  }

  #tell(notice: Notice | null): void {
    this.notice = notice;
    this.#notify();
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

function mineOf(room: Room | null): ReadonlyMap<string, Seat> {
  return new Map(room?.mine.map((seat) => [seat.seat_id, seat]));
}
