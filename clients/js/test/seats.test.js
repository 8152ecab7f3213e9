/** Seats and rooms, on a real server. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { join, make, reason } from "./clients.js";
import { Server, unique, until } from "./server.js";

const server = new Server({ SEATWS_HOLDS__SECONDS: "5", SEATWS_HOLDS__MAX_SEATS_PER_CLIENT: "3" });
beforeAll(() => server.start());
afterAll(() => server.remove());

/** Two clients in a room of their own. */
async function two(options) {
  const room = unique("r");
  return [await join(server.url, room, options), await join(server.url, room), room];
}

test("joining resolves with the room, which is the current one from then on", async () => {
  const room = unique("r");
  const ann = await join(server.url, room);
  expect(ann.room).toMatchObject({ room_id: room, joined: true, rev: 0, mine: [] });
  expect(ann.currentRoom).toBe(room);
  expect(await ann.joinRoom(room)).toBe(ann.room);
});

test("a seat is mine and pending at once, then confirmed, and the others see whose it is", async () => {
  const [ann, bob] = await two();
  const asked = ann.selectSeat("A1", { name: "Ann" });
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: true, client_id: ann.clientId, user_info: { name: "Ann" } });
  const hold = await asked;
  expect(hold).toMatchObject({ seat_id: "A1", client_id: ann.clientId, user_info: { name: "Ann" } });
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: false, expires_at: hold.expires_at });
  expect(ann.room.mine).toEqual([ann.seat("A1")]);
  await until(() => bob.seat("A1").state === "other");
  expect(bob.seat("A1")).toMatchObject({ client_id: ann.clientId, user_info: { name: "Ann" }, expires_at: hold.expires_at });
  expect(bob.room.mine).toEqual([]);
});

test("a refused seat goes back to what it was, and the error says why", async () => {
  const [ann, bob, room] = await two();
  const hold = await ann.selectSeat("A1");
  await until(() => bob.seat("A1").state === "other");
  const before = bob.seat("A1");
  const error = await reason(bob.selectSeat("A1"));
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ code: "seat_taken", retryable: false, request: "select_seat", room_id: room, seat_id: "A1" });
  expect(error.conflicts).toEqual([{ seat_id: "A1", expires_at: hold.expires_at }]);
  expect(bob.heard.error).toEqual([error]);
  expect(bob.seat("A1")).toEqual(before);
});

test("an optimistic change is rolled back where the seat looked free", async () => {
  const [ann] = await two();
  for (const seat of ["A1", "A2", "A3"]) await ann.selectSeat(seat);
  const asked = ann.selectSeat("A4");
  expect(ann.seat("A4")).toMatchObject({ state: "mine", pending: true });
  expect(await reason(asked)).toMatchObject({ code: "limit_reached", seat_id: "A4" });
  expect(ann.seat("A4")).toMatchObject({ state: "free", pending: false, client_id: null, expires_at: null });
  expect(ann.room.seats.has("A4")).toBe(false);
});

test("nobody has to look at a promise that is rejected", async () => {
  const [ann, bob] = await two();
  await ann.selectSeat("A1");
  const unhandled = [];
  const listener = (error) => unhandled.push(error);
  process.on("unhandledRejection", listener);
  bob.selectSeat("A1");
  bob.releaseSeat("A1");
  await until(() => bob.heard.error.length === 2);
  await new Promise(setImmediate); // Node tells of unhandled rejections after each turn
  process.off("unhandledRejection", listener);
  expect(unhandled).toEqual([]);
});

test("a seat being released is free and pending at once, then free for all", async () => {
  const [ann, bob] = await two();
  await ann.selectSeat("A1");
  await until(() => bob.seat("A1").state === "other");
  const asked = ann.releaseSeat("A1");
  expect(ann.seat("A1")).toMatchObject({ state: "free", pending: true, client_id: null });
  await asked;
  expect(ann.room.seats.size).toBe(0);
  await until(() => bob.room.seats.size === 0);
});

test("another's seat can't be released, and stays as it is", async () => {
  const [ann, bob] = await two();
  await ann.selectSeat("A1");
  await until(() => bob.seat("A1").state === "other");
  const asked = bob.releaseSeat("A1");
  expect(bob.seat("A1")).toMatchObject({ state: "other", pending: true, client_id: ann.clientId });
  expect(await reason(asked)).toMatchObject({ code: "not_holder", request: "release_seat" });
  expect(bob.seat("A1")).toMatchObject({ state: "other", pending: false });
});

test("of several requests for one seat, the last one shows, and the map is right in the end", async () => {
  const [ann, bob] = await two();
  const requests = [ann.selectSeat("A1"), ann.releaseSeat("A1"), ann.selectSeat("A1")];
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: true });
  await Promise.all(requests);
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: false });
  await until(() => bob.seat("A1").state === "other");
});

test("several seats are had all or none", async () => {
  const [ann, bob] = await two();
  const holds = await ann.selectSeats(["B1", "B2"], { name: "Ann" });
  expect(holds.map((each) => each.seat_id).sort()).toEqual(["B1", "B2"]);
  await until(() => bob.seat("B2").state === "other");
  const asked = bob.selectSeats(["C1", "B1", "B2"]);
  expect(bob.seat("C1")).toMatchObject({ state: "mine", pending: true });
  const error = await reason(asked);
  expect(error).toMatchObject({ code: "seat_taken", request: "select_seats" });
  expect(error.conflicts.map((each) => each.seat_id).sort()).toEqual(["B1", "B2"]);
  expect(bob.room.mine).toEqual([]);
  expect(bob.seat("C1").state).toBe("free");
});

test("what is asked before there is a connection is done when there is one", async () => {
  const room = unique("r");
  const ann = make(server.url);
  ann.joinRoom(room);
  const asked = ann.selectSeat("A1");
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: true });
  ann.connect();
  expect(await asked).toMatchObject({ seat_id: "A1", room_id: room });
});

test("without a connection a request is given up in time, and not done later", async () => {
  const ann = make(server.url, { requestTimeout: 30 });
  const room = unique("r");
  ann.joinRoom(room);
  expect(await reason(ann.selectSeat("A1"))).toMatchObject({ code: "timeout", retryable: true, seat_id: "A1" });
  expect(ann.room.seats.size).toBe(0);
  ann.connect();
  await until(() => ann.room.joined);
  const bob = await join(server.url, room);
  await bob.selectSeat("B1");
  await until(() => ann.seat("B1").state === "other");
  expect(ann.room.rev).toBe(1);
  expect(ann.heard.sent.map((each) => each.type)).not.toContain("select_seat");
});

test("without a room there is nothing to select in", async () => {
  const ann = make(server.url);
  ann.connect();
  expect(await reason(ann.selectSeat("A1"))).toMatchObject({ code: "invalid_message", request: "select_seat" });
});

test("one connection serves several rooms", async () => {
  const [ann, bob, first] = await two();
  const second = unique("r");
  await ann.joinRoom(second);
  expect(ann.currentRoom).toBe(second);
  await bob.selectSeat("A1");
  await until(() => ann.rooms.get(first).seats.get("A1")?.state === "other");
  await ann.selectSeat("A1");
  await ann.selectSeat("A2", {}, first);
  expect(ann.room.mine.map((seat) => seat.seat_id)).toEqual(["A1"]);
  expect(ann.rooms.get(first).mine.map((seat) => seat.seat_id)).toEqual(["A2"]);
  expect([...ann.rooms.keys()]).toEqual([first, second]);
});

test("who leaves a room hears no more of it, and keeps the holds", async () => {
  const [ann, bob, room] = await two();
  await ann.selectSeat("A1");
  await ann.leaveRoom();
  expect([ann.room, ann.currentRoom, ann.rooms.size]).toEqual([null, null, 0]);
  expect(ann.heard.change.at(-1)).toEqual({ room_id: room, room: null, seat_ids: ["A1"] });
  const changes = ann.heard.change.length;
  await bob.selectSeat("A2");
  await ann.ping();
  expect(ann.heard.change.length).toBe(changes);
  expect(bob.seat("A1").state).toBe("other");
  await ann.joinRoom(room);
  expect(ann.seat("A1").state).toBe("mine");
});

test("leaving and joining again at once ends inside the room", async () => {
  const [ann, bob, room] = await two();
  ann.leaveRoom();
  await ann.joinRoom(room);
  await bob.selectSeat("A1");
  await until(() => ann.seat("A1").state === "other");
});

test("leaving settles what waits for the room", async () => {
  const ann = make(server.url);
  const asked = ann.joinRoom(unique("r"));
  await ann.leaveRoom();
  expect(await reason(asked)).toMatchObject({ code: "aborted", request: "join_room" });
  expect(ann.heard.error).toEqual([]);
});

test("a refused room is no room, and the error says why", async () => {
  const ann = make(server.url);
  ann.connect();
  expect(await reason(ann.joinRoom("no/room"))).toMatchObject({ code: "invalid_message", request: "join_room" });
  expect([ann.room, ann.currentRoom]).toEqual([null, null]);
  expect(ann.heard.error.map((error) => error.code)).toEqual(["invalid_message"]);
});

test("a client's seats are its own in every tab", async () => {
  const room = unique("r");
  const tab = await join(server.url, room);
  const other = await join(server.url, room, { clientId: tab.clientId });
  await tab.selectSeat("A1");
  await until(() => other.seat("A1").state === "mine");
  await other.releaseSeat("A1");
  await until(() => tab.room.seats.size === 0);
});

test("snapshots are never changed, and stay the same object while nothing changes", async () => {
  const [ann, bob] = await two();
  await ann.selectSeat("A1");
  const [room, seat] = [ann.room, ann.seat("A1")];
  expect(ann.room).toBe(room);
  await bob.selectSeat("B1");
  await until(() => ann.seat("B1").state === "other");
  expect(ann.room).not.toBe(room);
  expect(room.seats.size).toBe(1);
  expect(ann.seat("A1")).toBe(seat);
  expect(ann.heard.change.at(-1)).toEqual({ room_id: room.room_id, room: ann.room, seat_ids: ["B1"] });
  await ann.joinRoom(room.room_id); // the map anew
  expect(ann.seat("A1")).toBe(seat);
});

test("a hold that ends is told of before, once, and is free for all after", async () => {
  const [ann, bob] = await two({ expiringMs: 4_500 });
  const hold = await ann.selectSeat("A1");
  const left = ann.remaining(hold);
  expect(left).toBeGreaterThan(4_500);
  expect(left).toBeLessThanOrEqual(5_100);
  await until(() => ann.heard.expiring.length);
  const { seat, remaining } = ann.heard.expiring[0];
  expect(seat).toEqual(ann.seat("A1"));
  expect(remaining).toBeLessThanOrEqual(4_550); // timers may be a little early
  await ann.joinRoom(ann.currentRoom); // the map anew: the same hold
  await until(() => ann.room.seats.size === 0 && bob.room.seats.size === 0);
  expect(ann.remaining(hold)).toBe(0);
  expect(ann.heard.expiring.length).toBe(1);
  expect(bob.heard.expiring).toEqual([]);
});

test("a listener's mistake stops nobody", async () => {
  const [ann] = await two();
  const errors = [];
  const original = console.error;
  console.error = (error) => errors.push(error.message);
  const stop = ann.on("change", () => {
    throw new Error("a mistake");
  });
  await ann.selectSeat("A1").finally(() => (console.error = original));
  stop();
  expect(ann.seat("A1").pending).toBe(false);
  expect(new Set(errors)).toEqual(new Set(["a mistake"]));
});

test("who stops listening hears nothing more", async () => {
  const [ann] = await two();
  const heard = [];
  const stop = ann.on("change", () => heard.push(1));
  stop();
  await ann.selectSeat("A1");
  expect(heard).toEqual([]);
});

test("a ping gives the round trip", async () => {
  const [ann] = await two();
  const milliseconds = await ann.ping();
  expect(milliseconds).toBeGreaterThan(0);
  expect(ann.latency).toBe(milliseconds);
});
