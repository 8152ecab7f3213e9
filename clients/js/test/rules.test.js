/** Rules that hang on the clock or on the server's exact words: time is turned by hand. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { fakePage, make, reason } from "./clients.js";
import { FakeSocket } from "./fake-socket.js";

const START = Date.parse("2026-01-15T10:30:00.000Z");
const at = (ms) => new Date(START + ms).toISOString();
const pass = (ms) => vi.advanceTimersByTimeAsync(ms);
let page;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance"], now: START });
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("no network")));
  page = fakePage();
});

afterEach(() => {
  FakeSocket.all = [];
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A client in room "r", whose socket is FakeSocket.last. */
async function joined(options) {
  const client = make("ws://seats.test", { clientId: "ann", ...options });
  client.connect();
  client.joinRoom("r");
  await pass(0);
  FakeSocket.last.open().pong().map("r", 7);
  return client;
}

const hold = (seat_id, client_id, ms = 300_000) => ({
  client_id, seat_id, room_id: "r", user_info: {}, timestamp: at(0), expires_at: at(ms),
});
const selected = (seat_id, client_id, rev, more = {}) => ({
  type: "seat_selected", seat_id, room_id: "r", client_id, rev, expires_at: at(300_000), ...more,
});

test("the frames are the guide's", async () => {
  const ann = await joined();
  ann.selectSeat("A1", { name: "Ann" });
  ann.selectSeats(["B1", "B2"]);
  ann.releaseSeat("C1");
  ann.leaveRoom();
  const { sent, url, protocols } = FakeSocket.last;
  expect([url, protocols]).toEqual(["ws://seats.test/ws/ann", []]);
  expect(sent.map(({ request_id: _, ...frame }) => frame)).toEqual([
    { type: "join_room", room_id: "r" },
    { type: "ping" },
    { type: "select_seat", room_id: "r", seat_id: "A1", user_info: { name: "Ann" } },
    { type: "select_seats", room_id: "r", seat_ids: ["B1", "B2"], user_info: {} },
    { type: "release_seat", room_id: "r", seat_id: "C1" },
    { type: "leave_room", room_id: "r" },
  ]);
  expect(ann.heard.sent).toEqual(sent);
});

test.each([
  ["ws://h:8001", "ws://h:8001/ws/ann"],
  ["http://h:8001/", "ws://h:8001/ws/ann"],
  ["https://h/seats//", "wss://h/seats/ws/ann"],
  [undefined, "ws://localhost:8001/ws/ann"],
])("the server's address %s", async (address, url) => {
  make(address, { clientId: "ann" }).connect();
  await pass(0);
  expect(FakeSocket.last.url).toBe(url);
});

test.each(["", ".", "..", "a/b", "a b", "ñ", "x".repeat(65)])("%j is no client id", (clientId) => {
  expect(() => make("ws://h", { clientId })).toThrow(TypeError);
});

test("waits grow by full jitter up to 15 s", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  const ann = make("ws://seats.test");
  ann.connect();
  await pass(0);
  const waits = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    FakeSocket.last.end();
    waits.push(ann.status.retryAt - performance.now());
    const { length } = FakeSocket.all;
    await pass(waits.at(-1) - 1);
    expect(FakeSocket.all.length).toBe(length);
    await pass(1);
    expect(FakeSocket.all.length).toBe(length + 1);
  }
  expect(waits).toEqual([500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
  Math.random.mockReturnValue(0.1);
  FakeSocket.last.end();
  expect(ann.status.retryAt - performance.now()).toBeCloseTo(1_500);
});

test.each([[4_900, 2_000], [5_100, 500]])("a connection of %i ms: the next wait is up to %i ms", async (lived, wait) => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  const ann = make("ws://seats.test");
  ann.connect();
  await pass(0);
  FakeSocket.last.end();
  await pass(500);
  FakeSocket.last.end();
  await pass(1_000);
  FakeSocket.last.open().pong();
  await pass(lived);
  FakeSocket.last.end();
  expect(ann.status.retryAt - performance.now()).toBe(wait);
});

test.each([
  [1000, true], [1001, true], [1006, true], [1011, true], [1012, true], [1013, true], [4400, false], [4401, false],
  [4403, false], [4408, true], [4429, true], [4440, true],
])("close code %i: comes back, %s", async (code, comesBack) => {
  const ann = await joined({ token: "t" });
  const [closed, failed] = [vi.fn(), vi.fn()];
  ann.setCloseCallback(closed);
  ann.setErrorCallback(failed);
  FakeSocket.last.end(code);
  expect(ann.status).toMatchObject({ code, state: comesBack ? "connecting" : "disconnected" });
  await pass(60_000);
  expect(FakeSocket.all.length > 1).toBe(comesBack);
  expect(closed).toHaveBeenCalledTimes(comesBack ? 0 : 1);
  if (comesBack) return;
  expect(failed.mock.calls).toEqual([[ann.heard.error[0]]]);
  expect(ann.heard.error[0]).toMatchObject({ code: "closed", close_code: code });
});

test.each([
  [{ code: 4403, reconnect: false, retry_after_ms: 0 }, "disconnected"],
  [{ code: 4999, reconnect: false, retry_after_ms: 0 }, "disconnected"],
  [{ code: 1012, reconnect: true, retry_after_ms: 500 }, "connecting"],
])("a goodbye counts where the close itself gets lost: %j", async (goodbye, state) => {
  const ann = await joined();
  FakeSocket.last.say({ type: "goodbye", reason: "", ...goodbye }).end(1006);
  expect(ann.status).toMatchObject({ state, code: goodbye.code });
});

test("a wait that the server names is kept, also when the tab or the network comes back", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  const ann = await joined();
  FakeSocket.last.say({ type: "goodbye", code: 1012, reason: "", reconnect: true, retry_after_ms: 4_000 }).end(1012);
  expect(ann.status.retryAt - performance.now()).toBe(4_500);
  await pass(3_900);
  page.online();
  page.show();
  ann.connect();
  await pass(0);
  expect(FakeSocket.all.length).toBe(1);
  await pass(200);
  page.online();
  await pass(0);
  expect(FakeSocket.all.length).toBe(2);
});

test("no server may send one away for longer than ten minutes", async () => {
  const ann = await joined();
  FakeSocket.last.say({ type: "goodbye", code: 1013, reason: "", reconnect: true, retry_after_ms: 1e12 }).end(1013);
  expect(ann.status.retryAt - performance.now()).toBeLessThan(600_501);
});

test.each(["online", "show"])("waiting ends at once on %s", async (event) => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  await joined();
  FakeSocket.last.end();
  page[event]();
  await pass(0);
  expect(FakeSocket.all.length).toBe(2);
  page[event](); // while it is being opened, nothing
  await pass(0);
  expect(FakeSocket.all.length).toBe(2);
});

test("a sign of life is asked for every 25 s, and any frame is one", async () => {
  const ann = await joined();
  const socket = FakeSocket.last;
  for (let beats = 2; beats < 5; beats += 1) {
    await pass(beats < 3 ? 25_000 : 24_999);
    expect(socket.of("ping").length).toBe(beats);
    await pass(1);
    if (beats < 4) socket.pong();
    else socket.say(selected("A1", "bob", 8));
  }
  await pass(10_000);
  expect(ann.status.transport).toBe("websocket");
  await pass(14_999);
  expect(socket.of("ping").length).toBe(5);
  await pass(9_999);
  expect(ann.status.transport).toBe("websocket");
  await pass(1);
  expect(ann.status).toMatchObject({ state: "connecting", code: 4408 });
  expect(socket.readyState).toBe(3);
  expect(ann.heard.error).toEqual([]);
});

test("a socket that does not open, or says nothing, is given up after 12 s", async () => {
  const ann = make("ws://seats.test", { requestTimeout: 60_000 });
  ann.connect();
  await pass(11_999);
  expect(FakeSocket.all.length).toBe(1);
  await pass(501);
  expect(FakeSocket.all.length).toBe(2);
  FakeSocket.last.open();
  await pass(12_000);
  expect(ann.status).toMatchObject({ state: "connecting", code: 1006 });
});

test("three refused sockets in a row, not two, and not three with a word between", async () => {
  const asked = [];
  vi.stubGlobal("fetch", (url) => {
    asked.push(url);
    return new Promise(() => {});
  });
  make("wss://seats.test/x").connect();
  for (const failure of [true, true, false, true, true, true]) {
    await pass(10_000);
    expect(asked).toEqual([]);
    if (failure) FakeSocket.last.end();
    else FakeSocket.last.open().pong().end();
  }
  await pass(0);
  expect(asked).toEqual(["https://seats.test/x/health"]);
});

test("polling goes on while a socket brings nothing but a goodbye", async () => {
  vi.stubGlobal("fetch", (url) => (url.endsWith("health") ? Promise.resolve(new Response("{}")) : new Promise(() => {})));
  const ann = make("ws://seats.test");
  ann.connect();
  for (let failure = 0; failure < 3; failure += 1) {
    await pass(2_000);
    FakeSocket.last.end();
  }
  await pass(0);
  expect(ann.status.transport).toBe("polling");
  ann.heard.status.length = 0;
  const next = async (number) => {
    while (FakeSocket.all.length < number) await pass(100);
    return FakeSocket.last.open();
  };
  expect((await next(4)).sent).toEqual([{ type: "ping" }]);
  FakeSocket.last.say({ type: "goodbye", code: 1013, reason: "", reconnect: true, retry_after_ms: 500 }).end(1013);
  expect(ann.heard.status.map((status) => status.transport)).toEqual(["polling"]); // with another code
  (await next(5)).say({ type: "pong", timestamp: at(0) });
  expect(ann.status.transport).toBe("websocket");
});

test("after disconnect there is no timer, no listener and no socket", async () => {
  const ann = await joined({ token: async () => "t" });
  FakeSocket.last.map("r", 8, [hold("A1", "ann")]);
  ann.selectSeat("A2");
  ann.joinRoom("s");
  expect(vi.getTimerCount()).toBeGreaterThan(4);
  expect(page.listening).toEqual({ online: 1, visibilitychange: 1 });
  ann.disconnect();
  expect(vi.getTimerCount()).toBe(0);
  expect(page.listening).toEqual({ online: 0, visibilitychange: 0 });
  expect(FakeSocket.last.readyState).toBe(3);
});

test("disconnecting from inside a listener stops the reconnecting, too", async () => {
  const ann = await joined();
  const complained = vi.spyOn(console, "error").mockImplementation(() => {});
  ann.on("change", () => ann.disconnect());
  FakeSocket.last.end();
  expect(complained).not.toHaveBeenCalled();
  expect(ann.status.state).toBe("disconnected");
  expect(vi.getTimerCount()).toBe(0);
});

test.each([3_600_000, -3_600_000])("a visitor's clock that is wrong by %i ms changes no countdown", async (wrong) => {
  vi.setSystemTime(START + wrong);
  const ann = make("ws://seats.test", { clientId: "ann", requestTimeout: 1e9 });
  ann.connect();
  ann.joinRoom("r");
  await pass(0);
  FakeSocket.last.open().map("r", 1, [hold("A1", "ann")], at(0));
  expect(ann.remaining(ann.seat("A1"))).toBe(300_000); // from server_time
  expect(ann.serverNow()).toBe(START);
  await pass(1_000);
  FakeSocket.last.pong(at(900)); // round trip 1 s: the server read its clock half of it ago
  expect(ann.remaining(ann.seat("A1"))).toBe(300_000 - 1_400);
  vi.setSystemTime(START + 7 * wrong); // and it may be set meanwhile
  await pass(60_000);
  expect(ann.remaining(ann.seat("A1"))).toBe(300_000 - 61_400);
  FakeSocket.last.map("r", 2, [hold("A1", "ann")], at(61_000)); // took 400 ms: no better than the ping's
  expect(ann.remaining(ann.seat("A1"))).toBe(300_000 - 61_400);
  FakeSocket.last.map("r", 2, [hold("A1", "ann")], at(100_000)); // the machine slept
  expect(ann.remaining(ann.seat("A1"))).toBe(200_000);
  await pass(900_000);
  expect(ann.remaining(ann.seat("A1"))).toBe(0);
  expect(ann.remaining(ann.seat("Z9"))).toBe(null);
});

test("changes apply in order; one that is older than the map does not", async () => {
  const ann = await joined();
  FakeSocket.last.say(selected("A1", "bob", 8), selected("A2", "bob", 9));
  expect([...ann.room.seats.keys(), ann.room.rev]).toEqual(["A1", "A2", 9]);
  FakeSocket.last.say({ type: "seat_released", seat_id: "A1", room_id: "r", client_id: "bob", rev: 8 });
  FakeSocket.last.say(selected("Z1", "bob", 10, { room_id: "another" }));
  expect([...ann.room.seats.keys(), ann.room.rev]).toEqual(["A1", "A2", 9]);
  expect(FakeSocket.last.of("join_room").length).toBe(1);
});

test("a gap in the changes has the map sent anew", async () => {
  const ann = await joined();
  FakeSocket.last.say(selected("A1", "bob", 9));
  expect(ann.seat("A1").state).toBe("other");
  expect(FakeSocket.last.of("join_room").length).toBe(2);
  FakeSocket.last.map("r", 9, [hold("A1", "bob"), hold("A0", "bob")]);
  expect([...ann.room.seats.keys()].sort()).toEqual(["A0", "A1"]);
});

test("a map replaces everything, also with a lower rev", async () => {
  const ann = await joined();
  FakeSocket.last.say(selected("A1", "bob", 8)).map("r", 2, [hold("B1", "ann")]);
  expect([...ann.room.seats.keys(), ann.room.rev]).toEqual(["B1", 2]);
  expect(ann.heard.change.at(-1).seat_ids.sort()).toEqual(["A1", "B1"]);
  FakeSocket.last.say(selected("A2", "bob", 3));
  expect(ann.seat("A2").state).toBe("other");
});

test("an answer without a place in the order counts until the map comes", async () => {
  const ann = await joined();
  const asked = ann.selectSeat("A1", { name: "Ann" });
  const { request_id } = FakeSocket.last.of("select_seat")[0];
  const { rev: _, ...answer } = selected("A1", "ann", 0, { request_id });
  FakeSocket.last.say(answer);
  expect(await asked).toMatchObject({ seat_id: "A1", expires_at: at(300_000) });
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: false, user_info: { name: "Ann" } });
  expect(FakeSocket.last.of("join_room").length).toBe(2);
  FakeSocket.last.map("r", 12); // it has ended since
  expect(ann.room.seats.size).toBe(0);
});

test("another's news of a seat shows while one's own request for it waits", async () => {
  const ann = await joined();
  const asked = ann.selectSeat("A1");
  FakeSocket.last.say(selected("A1", "bob", 8));
  expect(ann.seat("A1")).toMatchObject({ state: "other", pending: true, client_id: "bob" });
  const { request_id } = FakeSocket.last.of("select_seat")[0];
  FakeSocket.last.say({ type: "error", code: "seat_taken", message: "", request: "select_seat", retryable: false, request_id, room_id: "r" });
  await reason(asked);
  expect(ann.seat("A1")).toMatchObject({ state: "other", pending: false });
});

test("a request without an answer is given up after ten seconds, and a late answer still counts", async () => {
  const ann = await joined();
  const asked = reason(ann.selectSeat("A1"));
  await pass(9_999);
  expect(ann.seat("A1").state).toBe("mine");
  await pass(1);
  expect(await asked).toMatchObject({ code: "timeout", retryable: true, request: "select_seat", seat_id: "A1" });
  expect(ann.seat("A1").state).toBe("free");
  const { request_id } = FakeSocket.last.of("select_seat")[0];
  FakeSocket.last.say(selected("A1", "ann", 8, { request_id }));
  expect(ann.seat("A1").state).toBe("mine");
});

test("what a rate limit refused is sent again when it may be, though the refusal names nothing", async () => {
  const ann = await joined();
  ann.selectSeat("A1");
  ann.joinRoom("s");
  FakeSocket.last.say({ type: "error", code: "rate_limited", message: "", request: null, retryable: true, retry_after_ms: 700 });
  await pass(699);
  expect(FakeSocket.last.of("select_seat").length).toBe(1);
  await pass(1);
  expect(FakeSocket.last.of("select_seat").length).toBe(2);
  expect(FakeSocket.last.of("join_room").map((frame) => frame.room_id)).toEqual(["r", "s", "s"]);
  expect(ann.heard.error).toEqual([]);
});

test("a join that is refused for now is tried again, and one without an answer, too", async () => {
  const ann = await joined();
  ann.joinRoom("s");
  const refusal = { type: "error", code: "store_unavailable", message: "", request: "join_room", retryable: true, room_id: "s" };
  FakeSocket.last.say(refusal);
  expect(FakeSocket.last.of("join_room").length).toBe(2);
  await pass(2_500);
  expect(FakeSocket.last.of("join_room").length).toBe(3);
  await pass(10_000);
  expect(FakeSocket.last.of("join_room").length).toBe(4);
  FakeSocket.last.map("s", 0);
  await pass(20_000);
  expect(FakeSocket.last.of("join_room").length).toBe(4);
  expect(ann.heard.error).toEqual([]);
});

test("who is put out of a room is told, and does not try to return", async () => {
  const ann = await joined();
  FakeSocket.last.say({ type: "room_left", room_id: "r", client_id: "ann", reason: "forbidden" });
  expect([ann.room, ann.rooms.size]).toEqual([null, 0]);
  expect(ann.heard.error).toMatchObject([{ code: "forbidden", room_id: "r" }]);
  await pass(20_000);
  expect(FakeSocket.last.of("join_room").length).toBe(1);
});

test("a hold is told of once, so long before its end as one likes, also after a resync", async () => {
  const ann = await joined({ expiringMs: 30_000 });
  FakeSocket.last.map("r", 8, [hold("A1", "ann", 40_000), hold("B1", "bob", 40_000)]);
  await pass(9_999);
  expect(ann.heard.expiring).toEqual([]);
  FakeSocket.last.map("r", 9, [hold("A1", "ann", 40_000), hold("B1", "bob", 40_000)]);
  await pass(1);
  expect(ann.heard.expiring).toEqual([{ room_id: "r", seat: ann.seat("A1"), remaining: 30_000 }]);
  FakeSocket.last.map("r", 10, [hold("A1", "ann", 40_000)]);
  await pass(5_000);
  expect(ann.heard.expiring.length).toBe(1);
  FakeSocket.last.map("r", 11, [hold("A1", "ann", 60_000)]); // a new hold of the same seat
  await pass(15_000);
  expect(ann.heard.expiring.length).toBe(2);
});

test("twenty minutes in a hidden tab leave it connected and right", async () => {
  const fakeTimeout = globalThis.setTimeout;
  // Timers of hidden tabs run once a minute; frames come as ever.
  const minute = (ms) => 60_000 - ((performance.now() + ms) % 60_000);
  vi.stubGlobal("setTimeout", (run, ms = 0) => fakeTimeout(run, ms + minute(ms)));
  const ann = await joined();
  const socket = FakeSocket.last;
  const send = socket.send.bind(socket);
  socket.send = (text) => {
    send(text);
    if (JSON.parse(text).type === "ping") queueMicrotask(() => socket.pong());
  };
  for (let change = 0; change < 20; change += 1) {
    await pass(60_000);
    socket.say(selected(`A${change}`, "bob", 8 + change));
  }
  expect(socket.of("ping").length).toBeGreaterThan(10);
  expect(ann.status.transport).toBe("websocket");
  expect([ann.room.seats.size, FakeSocket.all.length]).toEqual([20, 1]);
});

test("leaving is not repeated into a room that was joined again", async () => {
  const ann = await joined();
  const left = ann.leaveRoom();
  ann.joinRoom("r");
  FakeSocket.last.end();
  await pass(500);
  FakeSocket.last.open().map("r", 1);
  await left;
  expect(FakeSocket.last.sent.map((frame) => frame.type)).toEqual(["join_room", "ping"]);
  expect(ann.room.joined).toBe(true);
});

test("a token that is accepted in between begins the count of refusals anew", async () => {
  const ann = make("ws://seats.test", { token: () => "t" });
  ann.connect();
  for (let connection = 1; connection < 8; connection += 1) {
    while (FakeSocket.all.length < connection) await pass(100);
    FakeSocket.last.open().say({ type: "auth_ok", client_id: "ann", expires_at: null }).end(4401);
  }
  expect(ann.status.state).toBe("connecting");
});

test("a socket that was given up is heard no more", async () => {
  const ann = await joined();
  const old = FakeSocket.last;
  old.end();
  await pass(500);
  FakeSocket.last.open().pong().map("r", 1);
  old.say(selected("A1", "bob", 2));
  old.end();
  expect([ann.room.rev, ann.status.transport]).toEqual([1, "websocket"]);
});

test("no user_info is an empty one", async () => {
  const ann = await joined();
  ann.selectSeat("A1", null);
  expect(ann.seat("A1")).toMatchObject({ state: "mine", user_info: {} });
  expect(FakeSocket.last.of("select_seat")[0].user_info).toEqual({});
});

test("a client inside a proxy works as outside, as frameworks wrap what they keep", async () => {
  const ann = new Proxy(await joined(), {});
  expect(ann.__v_skip).toBe(true); // for Vue it is best left unwrapped
  ann.selectSeat("A1");
  expect(ann.seat("A1").state).toBe("mine");
  expect(ann.room.mine.length).toBe(1);
  ann.disconnect();
  expect(ann.status.state).toBe("disconnected");
});
