/** Connections that break, on a real server behind a proxy that gets in the way. */

import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { fakePage, hurry, join, make, reason } from "./clients.js";
import { Proxy } from "./proxy.js";
import { Server, unique, until } from "./server.js";

const server = new Server({ SEATWS_HOLDS__SECONDS: "60" });
const original = globalThis.fetch;
let proxy;

beforeAll(() => server.start());
afterAll(() => server.remove());
beforeEach(async () => {
  hurry();
  if (!server.isRunning) await server.start(); // a test that failed may have left it so
  proxy = await new Proxy(server.port).start();
});
afterEach(async () => {
  vi.unstubAllGlobals();
  await proxy.stop();
});

/** One client behind the proxy, one that is not, in a room of their own. */
async function two(options) {
  const room = unique("r");
  return [await join(proxy.url, room, options), await join(server.url, room), room];
}

const back = (client) => until(() => client.status.transport === "websocket" && client.room.joined);
const polls = (client) => until(() => client.status.transport === "polling" && client.room.joined);

test("after a loss it is back by itself, in its rooms, with all that it missed", async () => {
  const [ann, bob, room] = await two();
  const second = unique("r");
  await ann.joinRoom(second);
  await ann.selectSeat("S1");
  proxy.isDown = true;
  proxy.cut();
  await until(() => ann.status.state === "connecting");
  expect(ann.status).toMatchObject({ transport: null, code: 1006 });
  expect(ann.room.joined).toBe(false);
  expect(ann.seat("S1").state).toBe("mine"); // as last known
  await bob.selectSeat("A1");
  proxy.isDown = false;
  await until(() => ann.rooms.get(room).seats.get("A1")?.state === "other");
  await back(ann);
  expect(ann.room).toMatchObject({ room_id: second, joined: true });
  expect(ann.seat("S1").state).toBe("mine");
});

test("a loss that mends itself is no business of the guide's error and close callbacks", async () => {
  const [ann] = await two();
  const called = vi.fn();
  ann.setErrorCallback(called);
  ann.setCloseCallback(called);
  proxy.cut();
  await until(() => ann.status.state === "connecting");
  await back(ann);
  expect(called).not.toHaveBeenCalled();
  expect(ann.heard.error).toEqual([]);
  ann.disconnect();
  expect(called).toHaveBeenCalledOnce();
});

test("a request that did not arrive is sent again", async () => {
  const [ann, bob] = await two();
  proxy.freeze();
  const asked = ann.selectSeat("A1", { name: "Ann" });
  proxy.cut();
  expect(await asked).toMatchObject({ seat_id: "A1", user_info: { name: "Ann" } });
  await until(() => bob.seat("A1").state === "other");
});

test("a request whose answer got lost is answered all the same", async () => {
  const [ann, bob] = await two();
  proxy.mute();
  const selects = [ann.selectSeat("A1"), ann.selectSeats(["A2", "A3"])];
  await until(() => bob.room.seats.size === 3);
  proxy.cut();
  const [hold, holds] = await Promise.all(selects);
  expect(hold).toMatchObject({ seat_id: "A1", client_id: ann.clientId });
  expect(holds.map((each) => each.seat_id).sort()).toEqual(["A2", "A3"]);

  proxy.mute();
  const release = ann.releaseSeat("A1");
  await until(() => bob.seat("A1").state === "free");
  proxy.cut();
  await release; // though the server says "not_holder" to the second one
  await back(ann);
  expect(ann.room.mine.map((seat) => seat.seat_id).sort()).toEqual(["A2", "A3"]);
  expect(ann.heard.error).toEqual([]);
});

test("a dead connection is noticed when the tab is looked at again", async () => {
  const page = fakePage();
  const [ann, bob] = await two({ requestTimeout: 1_500 });
  proxy.freeze();
  await bob.selectSeat("A1");
  page.show();
  await until(() => ann.status.code === 4408);
  await until(() => ann.seat("A1").state === "other");
});

test("a server that is killed and comes back finds its clients, and they their seats", async () => {
  const [ann, bob] = await two();
  await ann.selectSeat("A1");
  await server.stop("SIGKILL");
  await until(() => [ann, bob].every((each) => each.status.state === "connecting"));
  await server.start();
  await until(() => [ann, bob].every((each) => each.room.joined));
  await bob.selectSeat("B1");
  await until(() => ann.seat("B1").state === "other");
  expect(bob.seat("A1").state).toBe("other");
  expect(ann.seat("A1").state).toBe("mine");
});

test("a server that goes down says when to come back, and is taken at its word", async () => {
  const [ann] = await two();
  const waits = [];
  ann.on("status", ({ retryAt }) => retryAt && waits.push(retryAt - performance.now()));
  await server.stop();
  await until(() => waits.length);
  const goodbye = ann.heard.message.find((message) => message.type === "goodbye");
  expect(ann.heard.status.find((status) => status.retryAt).code).toBe(goodbye.code);
  expect(waits[0]).toBeGreaterThan(goodbye.retry_after_ms - 50);
  await server.start();
  await back(ann);
});

test("where nothing can be reached the page is told once, and it is tried on and on", async () => {
  const ann = make(proxy.url);
  const failed = vi.fn();
  ann.setErrorCallback(failed);
  proxy.isDown = true;
  ann.joinRoom(unique("r"));
  ann.connect();
  await until(() => failed.mock.calls.length);
  expect(failed.mock.calls[0][0]).toMatchObject({ code: "unreachable", retryable: true });
  await until(() => ann.heard.status.filter((status) => status.retryAt).length > 6);
  expect(failed).toHaveBeenCalledOnce();
  expect(ann.status.state).toBe("connecting");
  proxy.isDown = false;
  await back(ann);
  proxy.isDown = true;
  proxy.cut();
  await until(() => failed.mock.calls.length === 2); // another outage
});

test("without WebSockets it polls, and seats work both ways", async () => {
  const [, bob, room] = await two();
  proxy.webSockets = "refuse";
  const ann = await join(proxy.url, room);
  expect(ann.status).toMatchObject({ state: "connected", transport: "polling" });
  expect(ann.heard.error).toEqual([]);

  const asked = ann.selectSeat("A1", { name: "Ann" });
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: true });
  expect(await asked).toMatchObject({ seat_id: "A1", client_id: ann.clientId, user_info: { name: "Ann" } });
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: false });
  await until(() => bob.seat("A1").state === "other");
  expect(bob.seat("A1").user_info).toEqual({ name: "Ann" });

  await bob.selectSeat("B1", { name: "Bob" });
  await until(() => ann.seat("B1").state === "other");
  expect(ann.seat("B1").user_info).toEqual({ name: "Bob" });
  const error = await reason(ann.selectSeat("B1"));
  expect(error).toMatchObject({ code: "seat_taken", request: "select_seat", seat_id: "B1", room_id: room });
  expect(error.conflicts).toEqual([{ seat_id: "B1", expires_at: bob.seat("B1").expires_at }]);
  expect(await reason(ann.releaseSeat("B1"))).toMatchObject({ code: "not_holder" });
  expect(ann.seat("B1")).toMatchObject({ state: "other", pending: false });

  await bob.releaseSeat("B1");
  await until(() => ann.seat("B1").state === "free");
  await ann.releaseSeat("A1");
  await until(() => bob.room.seats.size === 0);
  await until(() => ann.room.seats.size === 0);
});

test("several seats are had all or none by polling, too", async () => {
  const [, bob, room] = await two();
  proxy.webSockets = "refuse";
  const ann = await join(proxy.url, room);
  expect((await ann.selectSeats(["A1", "A2"])).map((each) => each.seat_id)).toEqual(["A1", "A2"]);
  await bob.selectSeat("B2");
  const error = await reason(ann.selectSeats(["A2", "B1", "B2", "B3"]));
  expect(error).toMatchObject({ code: "seat_taken", request: "select_seats" });
  await until(() => bob.seat("B1").state === "free");
  await until(() => ann.room.joined && ann.room.seats.size === 3);
  expect(ann.room.mine.map((seat) => seat.seat_id).sort()).toEqual(["A1", "A2"]); // the one it had stays
});

test("polling serves several rooms, leaving them, and pings", async () => {
  const [, bob, room] = await two();
  proxy.webSockets = "refuse";
  const ann = await join(proxy.url, room);
  for (let more = 0; more < 8; more += 1) await ann.joinRoom(unique("r")); // more than connections
  await bob.selectSeat("A1");
  await until(() => ann.rooms.get(room).seats.size === 1);
  expect(await ann.ping()).toBeGreaterThan(0);
  await ann.leaveRoom(room);
  expect(ann.rooms.has(room)).toBe(false);
  await ann.selectSeat("A1");
});

test("polling goes on while it tries to return, and the page sees no gap when it does", async () => {
  const [ann, bob] = await two();
  proxy.webSockets = "refuse";
  proxy.cut();
  await polls(ann);
  const { handshakes } = proxy;
  await until(() => proxy.handshakes > handshakes);
  await ann.selectSeat("A1");
  ann.heard.change.length = ann.heard.status.length = 0;
  proxy.webSockets = "pass";
  await until(() => ann.status.transport === "websocket");
  await bob.selectSeat("B1");
  await until(() => ann.seat("B1").state === "other" && ann.room.rev);
  expect(ann.heard.change.every((change) => change.room.joined)).toBe(true);
  expect(ann.heard.change.every((change) => change.room.seats.has("A1"))).toBe(true);
  expect(ann.heard.status.map((status) => status.state)).toEqual(["connected"]);
});

test("a proxy that accepts WebSockets and passes nothing on is seen through", async () => {
  proxy.webSockets = "swallow";
  const ann = make(proxy.url, { requestTimeout: 1_000 });
  ann.joinRoom(unique("r"));
  ann.connect();
  await polls(ann);
  const { handshakes } = proxy;
  await until(() => proxy.handshakes > handshakes);
  await until(() => proxy.handshakes > handshakes + 1);
  expect(ann.heard.status.at(-1).transport).toBe("polling");
  expect(ann.heard.change.at(-1).room.joined).toBe(true);
});

test("when polling breaks, too, it comes back by whatever works first", async () => {
  const [ann, bob] = await two();
  proxy.webSockets = "refuse";
  proxy.cut();
  await polls(ann);
  proxy.isDown = true;
  proxy.cut();
  await until(() => ann.status.state === "connecting");
  await bob.selectSeat("A1");
  proxy.isDown = false;
  await polls(ann);
  expect(ann.seat("A1").state).toBe("other");
});

test("while Redis is away nothing is promised, and the request may be repeated", async () => {
  const [ann] = await two();
  proxy.webSockets = "refuse";
  proxy.cut();
  await polls(ann);
  vi.stubGlobal("fetch", async (url, options) => {
    if (options.method !== "PUT") return original(url, options);
    const problem = { code: "store_unavailable", detail: "Redis is away", status: 503 };
    return new Response(JSON.stringify(problem), { status: 503 });
  });
  expect(await reason(ann.selectSeat("A1"))).toMatchObject({ code: "store_unavailable", retryable: true, message: "Redis is away" });
  expect(ann.seat("A1").state).toBe("free");
});

test("disconnecting stops all of it, and connecting again brings back the rooms", async () => {
  const [ann, bob, room] = await two();
  proxy.freeze();
  const asked = ann.selectSeat("A1");
  ann.disconnect();
  expect(await reason(asked)).toMatchObject({ code: "aborted" });
  expect(ann.status).toMatchObject({ state: "disconnected", transport: null, retryAt: null });
  expect(ann.ws).toBe(null);
  await bob.selectSeat("B1");
  const { handshakes } = proxy;
  ann.connect();
  await until(() => ann.rooms.get(room).joined);
  expect(ann.seat("B1", room).state).toBe("other");
  expect(proxy.handshakes).toBe(handshakes + 1);
});

test("connecting twice, or with a disconnect between, makes one socket", async () => {
  const ann = make(proxy.url);
  ann.connect();
  ann.connect();
  ann.disconnect();
  ann.connect();
  await ann.joinRoom(unique("r"));
  ann.connect();
  await ann.ping();
  expect(proxy.handshakes).toBe(1);
});
