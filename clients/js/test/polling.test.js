/** Rules of the polling that a real server can't be made to show: time and answers are made by hand. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { fakePage, make, reason } from "./clients.js";

const START = Date.parse("2026-01-15T10:30:00.000Z");
const at = (ms) => new Date(START + ms).toISOString();
const pass = (ms) => vi.advanceTimersByTimeAsync(ms);

/** Requests that wait for an answer: each with `url`, `method` and so on, and `answer` to give it. */
let requests;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance"], now: START });
  vi.spyOn(Math, "random").mockReturnValue(0.02);
  vi.stubGlobal("WebSocket", undefined);
  fakePage();
  requests = [];
  vi.stubGlobal("fetch", (url, options) => {
    if (url.endsWith("/health")) return Promise.resolve(new Response("{}"));
    return new Promise((resolve, reject) => {
      const answer = (status, json, headers = {}) => {
        requests = requests.filter((each) => each !== request);
        resolve(new Response(json && JSON.stringify(json), { status, headers }));
        return pass(0);
      };
      const request = { url, answer, fail: reject, ...options };
      if (options.signal.aborted) reject(options.signal.reason);
      options.signal.addEventListener("abort", () => reject(options.signal.reason));
      requests.push(request);
    });
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const find = (method, part = "") => requests.find((each) => each.method === method && each.url.includes(part));
const map = (...selections) => ({ room_id: "r", selections, count: selections.length });
const hold = (seat_id, client_id, since = 0) => ({
  client_id, seat_id, room_id: "r", user_info: {}, timestamp: at(since), expires_at: at(since + 300_000),
});

/** A client that polls room "r", which is empty. */
async function polling(options, headers = { ETag: '"e-1"' }) {
  const client = make("ws://seats.test", { clientId: "ann", ...options });
  client.connect();
  client.joinRoom("r");
  await pass(3_000);
  await find("GET").answer(200, map(), headers);
  await pass(200);
  return client;
}

test("the first request gets the map, the next ones wait for a change", async () => {
  const ann = make("ws://seats.test", { clientId: "ann" });
  ann.connect();
  ann.joinRoom("r");
  await pass(3_000);
  expect(find("GET")).toMatchObject({ headers: { "If-None-Match": "" }, cache: "no-store" });
  expect(find("GET").url).toBe("http://seats.test/room/r/selections?client_id=ann&wait=25");
  await find("GET").answer(200, map(), { ETag: '"e-1"' });
  expect(ann.room).toMatchObject({ joined: true, rev: null });
  await pass(200);
  expect(find("GET").headers).toEqual({ "If-None-Match": '"e-1"' });
  await find("GET").answer(304);
  await pass(200);
  await find("GET").answer(200, map(hold("A1", "bob")), { ETag: '"e-2"' });
  expect(ann.seat("A1").state).toBe("other");
  await pass(200);
  expect(find("GET").headers).toEqual({ "If-None-Match": '"e-2"' });
  expect(ann.heard.message.map((message) => message.type)).toEqual(["room_joined", "current_selections", "current_selections"]);
});

test("a map that was read before one's own change is not shown after it", async () => {
  const ann = await polling();
  const old = find("GET");
  const asked = ann.selectSeat("A1");
  await pass(0);
  await find("PUT").answer(201, hold("A1", "ann"));
  await asked;
  await old.answer(200, map(), { ETag: '"e-2"' });
  expect(ann.seat("A1")).toMatchObject({ state: "mine", pending: false });
  await find("GET").answer(200, map(hold("A1", "ann")), { ETag: '"e-3"' });
  expect(ann.seat("A1").state).toBe("mine");
});

test("with many rooms no request waits for long, so that others get through", async () => {
  const ann = await polling();
  for (const room of ["s", "t", "u"]) ann.joinRoom(room);
  await pass(0);
  expect(find("GET", "/r/").url).toContain("wait=25");
  expect(find("GET", "/u/").url).toContain("wait=2");
  expect(find("GET", "/u/").url).not.toContain("wait=25");
});

test("the server's time is learnt from one's own hold, or from the Date of an answer", async () => {
  vi.setSystemTime(START + 3_600_000);
  const ann = await polling({}, { ETag: '"e-1"', Date: new Date(START).toUTCString() });
  expect(ann.serverNow() - START).toBe(200);
  const asked = ann.selectSeat("A1");
  await pass(0);
  await find("PUT").answer(201, hold("A1", "ann", 900), { Date: new Date(START).toUTCString() });
  expect(ann.remaining(await asked)).toBe(300_000);
  expect(ann.heard.expiring).toEqual([]);
});

test("a pong tells nothing new about the time", async () => {
  const ann = await polling({}, { ETag: '"e-1"', Date: new Date(START).toUTCString() });
  const before = ann.serverNow() - performance.now();
  await ann.ping();
  expect(ann.serverNow() - performance.now()).toBeCloseTo(before, 6);
});

test("what the server can't do for now is tried again, what it refuses is not", async () => {
  const ann = await polling();
  await find("GET").answer(503, { code: "store_unavailable", detail: "away" });
  expect(ann.room.joined).toBe(true);
  await pass(2_000);
  expect(find("GET").headers).toEqual({ "If-None-Match": '"e-1"' });
  await find("GET").answer(403, { code: "forbidden", detail: "not allowed" });
  expect(ann.room).toBe(null);
  expect(ann.heard.error).toMatchObject([{ code: "forbidden", request: "join_room", room_id: "r" }]);
  await pass(30_000);
  expect(requests).toEqual([]);
});

test("a room that can't be read yet is joined when it can", async () => {
  const ann = make("ws://seats.test");
  ann.connect();
  ann.joinRoom("r");
  await pass(3_000);
  await find("GET").answer(503, { code: "store_unavailable", detail: "away" });
  expect(ann.heard.error).toEqual([]);
  await pass(3_000);
  await find("GET").answer(200, map(), { ETag: '"e-1"' });
  expect(ann.room.joined).toBe(true);
});

test("a seat that is refused for being too fast is asked for again", async () => {
  const ann = await polling();
  const asked = ann.selectSeat("A1");
  await pass(0);
  await find("PUT").answer(429, { code: "rate_limited", detail: "slow down", retry_after_ms: 700 });
  await pass(699);
  expect(find("PUT")).toBe(undefined);
  await pass(1);
  await find("PUT").answer(201, hold("A1", "ann"));
  expect((await asked).seat_id).toBe("A1");
});

test("an answer that is no JSON, or that never comes, is a connection that is lost", async () => {
  const ann = await polling();
  await find("GET").answer(502);
  expect(ann.status.state).toBe("connecting");
  await pass(5_000);
  expect(ann.status.transport).toBe("polling");
  await find("GET").answer(200, map(), { ETag: '"e-1"' });
  await pass(200);
  await pass(34_999);
  expect(ann.status.transport).toBe("polling");
  await pass(1);
  expect(ann.status.state).toBe("connecting");
});

test("tokens that are good in between are not counted as refused", async () => {
  let calls = 0;
  const ann = await polling({ token: () => `t${++calls}` });
  for (let renewal = 2; renewal < 8; renewal += 1) {
    await find("GET").answer(401, { code: "unauthenticated", detail: "ended" });
    await pass(0); // without waiting for a socket, which might take long to fail
    expect(find("GET").headers.Authorization).toBe(`Bearer t${renewal}`);
    await find("GET").answer(200, map(), { ETag: '"e-1"' });
    await pass(200);
  }
  for (let refusal = 0; refusal < 3; refusal += 1) {
    await find("GET").answer(401, { code: "unauthenticated", detail: "ended" });
    await pass(500);
  }
  expect(ann.status).toMatchObject({ state: "disconnected", code: 4401 });
});

test("disconnecting ends the requests and the timers", async () => {
  const ann = await polling();
  const asked = ann.selectSeat("A1");
  expect(requests.every((each) => !each.signal.aborted)).toBe(true);
  const { signal } = find("GET");
  ann.disconnect();
  expect(signal.aborted).toBe(true);
  expect(await reason(asked)).toMatchObject({ code: "aborted" });
  await pass(0);
  expect(vi.getTimerCount()).toBe(0);
});
