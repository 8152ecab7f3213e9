/**
 * Live cinema seats: the client of a seatws server.
 *
 * One class, no dependencies, no build step. What the guide's `SeatSelectionClient` does, this does by
 * the same names; what the guide leaves to the application (reconnecting, refused seats, tokens,
 * clocks, networks without WebSockets) happens in here.
 *
 * What comes from the wire has the wire's names (`seat_id`, `expires_at`); all else is in camelCase.
 *
 *     const client = new SeatSelectionClient("wss://seats.example.com", { clientId: "ana" });
 *     client.on("change", ({ room }) => paint(room));
 *     client.connect();
 *     client.joinRoom("funcion_123");
 *     await client.selectSeat("A1", { name: "Ana" });
 */

/** What a page shows of the connection; `status-${state}` is the guide's CSS class. */
export type ConnectionState = "connecting" | "connected" | "disconnected";

/** Never changed: a new object with each change, so that it can be compared by identity. */
export interface Status {
  /**
   * `connecting`: under way, or waiting to try again (then `retryAt` is set). `disconnected`: nothing
   * is tried any more: `connect()` was not called, `disconnect()` was, or the server said not to return.
   */
  readonly state: ConnectionState;
  /** How one is connected; null while one is not. */
  readonly transport: "websocket" | "polling" | null;
  /** When the next attempt is made, on the clock of `performance.now()`; null if none is waited for. */
  readonly retryAt: number | null;
  /** The last close code: 1006 for a lost connection, 4403 for "not allowed" and so on; null so far. */
  readonly code: number | null;
}

/** Never changed, and the same object as long as nothing about the seat changes. */
export interface Seat {
  readonly seat_id: string;
  /** Whose it is, an optimistic change included: a seat being selected is `mine` at once. */
  readonly state: "free" | "mine" | "other";
  /** Whether an answer to `selectSeat`, `selectSeats` or `releaseSeat` is still awaited. */
  readonly pending: boolean;
  /** Who holds it; null when free. */
  readonly client_id: string | null;
  /** What the holder told and the server shares; `{}` otherwise. Made by visitors: never HTML. */
  readonly user_info: Readonly<Record<string, unknown>>;
  /** When the hold ends, as the wire has it; null when free or not known yet. For countdowns see `remaining`. */
  readonly expires_at: string | null;
}

/** Never changed: a new object with each change, so that it can be compared by identity. */
export interface Room {
  readonly room_id: string;
  /** Whether `seats` is live. False before the first answer and while the connection is down (last known seats). */
  readonly joined: boolean;
  /** Number of the room's last change; null before the first map, and while polling. */
  readonly rev: number | null;
  /** By seat id: every seat that is held, or about which an answer is awaited. A seat that is absent is free. */
  readonly seats: ReadonlyMap<string, Seat>;
  /** Those of `seats` that are mine. */
  readonly mine: readonly Seat[];
}

/** A hold that the server has confirmed. */
export interface Hold {
  readonly room_id: string;
  readonly seat_id: string;
  readonly client_id: string;
  readonly user_info: Readonly<Record<string, unknown>>;
  readonly expires_at: string;
}

/**
 * The server's words (PROTOCOL section 4), and this client's own:
 *
 * - `timeout`: no answer in time. Whether it was done, `room` will show.
 * - `aborted`: given up, since the room was left, `disconnect()` was called or the server closed for good.
 * - `closed`: the server closed for good: see `close_code`, and section 5.
 * - `unreachable`: the server can't be reached, neither way. The client goes on trying.
 * - `token_failed`: the `token` function failed, see `cause`. The client goes on trying.
 */
export type ErrorCode =
  | "invalid_message"
  | "seat_taken"
  | "not_holder"
  | "limit_reached"
  | "unauthenticated"
  | "forbidden"
  | "rate_limited"
  | "store_unavailable"
  | "timeout"
  | "aborted"
  | "closed"
  | "unreachable"
  | "token_failed"
  | (string & {});

/** Why something was refused or failed. */
export class SeatError extends Error {
  constructor(facts: { code: ErrorCode; message?: string; [fact: string]: unknown });
  readonly name: "SeatError";
  readonly code: ErrorCode;
  /** Whether the same request may work later. */
  readonly retryable: boolean;
  /** The `type` of the refused message, such as `select_seat`; undefined for the connection itself. */
  readonly request?: string | null;
  readonly room_id?: string;
  /** The seat in question; with `selectSeats`, see `conflicts`. */
  readonly seat_id?: string;
  /** With `seat_taken`: the seats in the way, and until when at most. `remaining` takes these, too. */
  readonly conflicts?: readonly { readonly seat_id: string; readonly expires_at: string }[];
  /** How long the server asks to wait. */
  readonly retry_after_ms?: number;
  /** With `closed`: 4400, 4401, 4403 or another. */
  readonly close_code?: number;
  /** With `token_failed`: what the function threw. */
  readonly cause?: unknown;
}

/** A frame of the wire, as PROTOCOL has it. */
export interface Message {
  readonly type: string;
  readonly [field: string]: any;
}

/** Gives a token; with `renew`, the one used last was refused or ends soon: a kept one is of no use. */
export type TokenFunction = (why: { readonly renew: boolean }) => string | Promise<string>;

export interface Options {
  /**
   * Who one is: 1–64 of `A-Z a-z 0-9 . _ : @ -`; where the server asks for tokens, the token's own.
   * Holds belong to it, not to the connection: keep it (in sessionStorage, say) and they survive a reload.
   * Default: a new one, `user_…`.
   */
  clientId?: string;
  /** A string, or a function asked at the first connection, before the token ends, and when it was refused. */
  token?: string | TokenFunction | null;
  /** Where the token travels. Default `subprotocol`. Over HTTP it is always the `Authorization` header. */
  tokenVia?: "subprotocol" | "message";
  /** For polling (when a WebSocket can't be had three times in a row), where a cookie signs in on another origin. As `fetch` has it. */
  credentials?: RequestCredentials;
  /** How long a request may take, the wait for a connection included. Default 10 000 ms. */
  requestTimeout?: number;
  /** So long before the end of one's hold `expiring` is emitted. Default 60 000 ms. */
  expiringMs?: number;
}

/** What `on` takes, and what its listeners get. */
export interface EventMap {
  /** Something in a room changed: seats, `joined`, or one left it (`room` is null then). */
  change: {
    readonly room_id: string;
    readonly room: Room | null;
    /** The seats that look different now. */
    readonly seat_ids: readonly string[];
  };
  /** The connection changed. */
  status: Status;
  /** A request was refused or failed (its promise rejects with the same), or the connection failed. */
  error: SeatError;
  /** One of my holds ends within `expiringMs`. Once a hold. */
  expiring: { readonly room_id: string; readonly seat: Seat; readonly remaining: number };
  /** Each frame from the server, after it took effect. Polling makes such frames: the whole map at each change. */
  message: Message;
  /** Each frame to the server (the token left out). */
  sent: Message;
}

export class SeatSelectionClient {
  /**
   * @param serverUrl `ws://`, `wss://`, `http://` or `https://`, with a path if the server stands below one.
   *   Default: `ws://localhost:8001`.
   * @throws TypeError for an illegal `clientId`
   */
  constructor(serverUrl?: string, options?: Options);

  readonly serverUrl: string;
  readonly clientId: string;
  /** The WebSocket in use or being opened; null otherwise. Look, don't touch. */
  readonly ws: WebSocket | null;
  /** The id of the room joined last, and not left since; null without. */
  readonly currentRoom: string | null;

  /** The room joined last, and not left since; null without. */
  readonly room: Room | null;
  /** All rooms that one has joined (or is joining), by id; a new Map each time. One connection serves them all. */
  readonly rooms: ReadonlyMap<string, Room>;
  readonly status: Status;
  /** Round trip of the last ping in ms; null before. */
  readonly latency: number | null;

  /** Connect, and stay connected until `disconnect()`. While waiting to try again: try now. Harmless when connected. */
  connect(): void;
  /** Close, and stop everything: timers, listeners, attempts. What is awaited rejects with `aborted`. Holds stay. */
  disconnect(): void;

  /**
   * Join a room, as soon as there is a connection, and again after each reconnect. It becomes `room`.
   *
   * @returns resolves when its seats are known. Rejects if refused; with `timeout`, it goes on trying.
   */
  joinRoom(roomId: string): Promise<Room>;
  /** Leave a room, by default the one joined last. Holds in it stay. */
  leaveRoom(roomId?: string | null): Promise<unknown>;

  /**
   * Ask for a seat: it is `mine` and `pending` at once, and goes back to what it was if refused.
   * Nobody has to look at the promise: errors are emitted too, and none is ever unhandled.
   *
   * @param userInfo what others may see with it; at most 1,024 bytes as JSON
   * @param roomId default: the room joined last
   * @returns resolves with the hold; rejects with a `SeatError`
   */
  selectSeat(seatId: string, userInfo?: object, roomId?: string): Promise<Hold>;
  /** Ask for several seats, all or none. `seat_taken` tells in `conflicts` which are in the way. */
  selectSeats(seatIds: readonly string[], userInfo?: object, roomId?: string): Promise<Hold[]>;
  /** Give a seat back. */
  releaseSeat(seatId: string, roomId?: string): Promise<unknown>;
  /** Ask for a sign of life. @returns the round trip in ms */
  ping(): Promise<number>;

  /** One seat of a room (by default `room`), free ones too. */
  seat(seatId: string, roomId?: string): Seat;
  /** Unix ms on the server's clock, whatever the visitor's own says. */
  serverNow(): number;
  /** Milliseconds until a hold ends, never below 0, whatever the visitor's clock says; null where there is none. */
  remaining(seat: { readonly expires_at: string | null }): number | null;

  /** Use another token: at once, on the connection that stands, and from now on. */
  setToken(token: string | TokenFunction | null): void;

  /** Listen. @returns a function that stops it */
  on<K extends keyof EventMap>(type: K, listener: (event: EventMap[K]) => void): () => void;
  off<K extends keyof EventMap>(type: K, listener: (event: EventMap[K]) => void): void;

  /** The guide's: called with each frame from the server. */
  setMessageCallback(callback: ((message: Message) => void) | null): void;
  /**
   * The guide's: called when the server can't be reached (three attempts in a row and polling failed) or
   * sent one away for good. Not for a loss that mends itself, nor for a refused seat (`on("error")` has those).
   */
  setErrorCallback(callback: ((error: SeatError) => void) | null): void;
  /** The guide's: called when the connection has ended for good: `disconnect()`, or the server said so. */
  setCloseCallback(callback: (() => void) | null): void;
}

export default SeatSelectionClient;
