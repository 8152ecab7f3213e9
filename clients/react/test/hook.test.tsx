import { act, renderHook, waitFor } from "@testing-library/react";
import { StrictMode } from "react";
import { afterAll, beforeAll, expect, it } from "vitest";
import { SeatSelectionClient, useSeatSelection } from "../src/index.js";
import type { SessionOptions } from "../src/index.js";
import { Proxy } from "../../js/test/proxy.js";
import { Server, unique } from "../../js/test/server.js";
import { stats, visitor } from "../../seatmap/test/people.js";

let server: Server;
beforeAll(async () => void (server = await new Server().start()));
afterAll(() => server.remove());

const LIMIT = { timeout: 30_000 }; // for a hang, never for timing

function hook(roomId: string | null, more: SessionOptions = {}, strict = false) {
  const options: SessionOptions = { url: server.url, clientId: unique("me"), ...more };
  return renderHook((props: { roomId: string | null; options: SessionOptions }) => useSeatSelection(props.roomId, props.options), {
    initialProps: { roomId, options },
    wrapper: strict ? StrictMode : undefined,
  });
}
type Hook = ReturnType<typeof hook>;
const joined = ({ result }: Hook) => waitFor(() => expect(result.current.room?.joined).toBe(true), LIMIT);

it("is connecting before it is connected, and joins", async () => {
  const roomId = unique("room");
  const mine = hook(roomId);
  expect(mine.result.current.status.state).toBe("connecting");
  await joined(mine);
  expect(mine.result.current.status).toMatchObject({ state: "connected", transport: "websocket" });
  expect(mine.result.current.room?.room_id).toBe(roomId);
});

it("shows a seat as mine at once, then with its deadline, and free again after the release", async () => {
  const mine = hook(unique("room"));
  await joined(mine);
  act(() => mine.result.current.toggleSeat("A1"));
  expect(mine.result.current.seat("A1")).toMatchObject({ state: "mine", pending: true, expires_at: null });
  await waitFor(() => expect(mine.result.current.seat("A1").expires_at).not.toBeNull(), LIMIT);
  expect(mine.result.current.mine.map((seat) => seat.seat_id)).toEqual(["A1"]);
  act(() => mine.result.current.toggleSeat("A1"));
  expect(mine.result.current.mine).toEqual([]);
  await waitFor(() => expect(mine.result.current.seat("A1").pending).toBe(false), LIMIT);
  expect(mine.result.current.seat("A1").state).toBe("free");
});

it("sees what others select and release, with what they told of themselves", async () => {
  const roomId = unique("room");
  const mine = hook(roomId);
  const other = await visitor(server.url, roomId);
  await joined(mine);
  await other.selectSeat("B5", { name: "María" });
  await waitFor(() => expect(mine.result.current.seat("B5").state).toBe("other"), LIMIT);
  expect(mine.result.current.seat("B5").user_info).toEqual({ name: "María" });
  await other.releaseSeat("B5");
  await waitFor(() => expect(mine.result.current.seat("B5").state).toBe("free"), LIMIT);
});

it("rolls a refused seat back, rejects the promise and says so in the notice", async () => {
  const roomId = unique("room");
  const other = await visitor(server.url, roomId);
  await other.selectSeat("C3");
  const mine = hook(roomId);
  await joined(mine);
  const errors: string[] = [];
  mine.rerender({ roomId, options: { ...mineOptions(mine), onError: (error) => errors.push(error.code) } });
  await act(() => expect(mine.result.current.selectSeat("C3")).rejects.toMatchObject({ code: "seat_taken" }));
  expect(mine.result.current.notice).toMatchObject({ kind: "refused", seatIds: ["C3"], error: { code: "seat_taken" } });
  expect(mine.result.current.seat("C3").state).toBe("other");
  expect(errors).toEqual(["seat_taken"]);
  act(() => mine.result.current.dismissNotice());
  expect(mine.result.current.notice).toBeNull();
});

function mineOptions({ result }: Hook): SessionOptions {
  return { url: server.url, clientId: result.current.client.clientId };
}

it("selects several seats or none", async () => {
  const roomId = unique("room");
  const other = await visitor(server.url, roomId);
  await other.selectSeat("D2");
  const mine = hook(roomId);
  await joined(mine);
  await act(() => expect(mine.result.current.selectSeats(["D1", "D2"])).rejects.toMatchObject({ code: "seat_taken" }));
  expect(mine.result.current.mine).toEqual([]);
  expect(mine.result.current.notice?.seatIds).toEqual(["D2"]);
  await act(() => mine.result.current.selectSeats(["D3", "D4"]));
  expect(mine.result.current.mine.map((seat) => seat.seat_id)).toEqual(["D3", "D4"]);
});

it("follows the room, leaves the old one, and shows none of its seats in the new one", async () => {
  const [first, second] = [unique("room"), unique("room")];
  const mine = hook(first);
  await joined(mine);
  await act(() => mine.result.current.selectSeat("A1"));
  mine.rerender({ roomId: second, options: mineOptions(mine) });
  expect(mine.result.current.mine).toEqual([]);
  await waitFor(() => expect(mine.result.current.room?.room_id).toBe(second), LIMIT);
  await joined(mine);
  await waitFor(async () => expect((await stats(server.url)).rooms[first]?.connections).toBe(0), LIMIT);
  mine.rerender({ roomId: first, options: mineOptions(mine) });
  await waitFor(() => expect(mine.result.current.seat("A1").state).toBe("mine"), LIMIT);
});

it("keeps its client when options are written in place, and takes a new one for another server or visitor", async () => {
  const roomId = unique("room");
  const mine = hook(roomId);
  await joined(mine);
  const { client } = mine.result.current;
  mine.rerender({ roomId, options: { ...mineOptions(mine), userInfo: { name: "Ana" }, onError: () => {} } });
  expect(mine.result.current.client).toBe(client);
  mine.rerender({ roomId, options: { ...mineOptions(mine), clientId: unique("me") } });
  expect(mine.result.current.client).not.toBe(client);
  expect(mine.result.current.status.state).toBe("connecting");
  await joined(mine);
  expect(client.status.state).toBe("disconnected");
});

it("sends the latest userInfo with a seat", async () => {
  const roomId = unique("room");
  const other = await visitor(server.url, roomId);
  const mine = hook(roomId);
  await joined(mine);
  mine.rerender({ roomId, options: { ...mineOptions(mine), userInfo: { name: "Ana" } } });
  act(() => mine.result.current.toggleSeat("A1"));
  await waitFor(() => expect(other.seat("A1").user_info).toEqual({ name: "Ana" }), LIMIT);
});

it("makes one connection in StrictMode, and has none after it was unmounted", async () => {
  const proxy = await new Proxy(server.port).start();
  const roomId = unique("room");
  const mine = hook(roomId, { url: proxy.url }, true);
  await joined(mine);
  await act(() => mine.result.current.selectSeat("A1"));
  expect(proxy.handshakes).toBe(1);
  expect((await stats(server.url)).rooms[roomId]?.connections).toBe(1);
  const { client } = mine.result.current;
  mine.unmount();
  expect(client.status.state).toBe("disconnected");
  expect(client.ws).toBeNull();
  await waitFor(async () => expect((await stats(server.url)).rooms[roomId]?.connections ?? 0).toBe(0), LIMIT);
  await proxy.stop();
});

it("comes back by itself, with its seats, when the connection breaks", async () => {
  const proxy = await new Proxy(server.port).start();
  const roomId = unique("room");
  const other = await visitor(server.url, roomId);
  const mine = hook(roomId, { url: proxy.url });
  await joined(mine);
  await act(() => mine.result.current.selectSeat("A1"));
  proxy.isDown = true; // until it was seen: the first attempt to come back may take no time
  proxy.cut();
  await waitFor(() => expect(mine.result.current.room?.joined).toBe(false), LIMIT);
  proxy.isDown = false;
  expect(mine.result.current.seat("A1").state).toBe("mine");
  await other.selectSeat("A2");
  await joined(mine);
  await waitFor(() => expect(mine.result.current.seat("A2").state).toBe("other"), LIMIT);
  mine.unmount();
  await proxy.stop();
});

it("shares a client of the page's own between maps, and leaves a room with the last of them", async () => {
  const roomId = unique("room");
  const client = new SeatSelectionClient(server.url, { clientId: unique("me") });
  client.connect();
  const [first, second] = [hook(roomId, { client }), hook(roomId, { client })];
  await Promise.all([joined(first), joined(second)]);
  act(() => first.result.current.toggleSeat("A1"));
  await waitFor(() => expect(second.result.current.seat("A1")).toMatchObject({ state: "mine", pending: false }), LIMIT);
  first.unmount();
  expect(second.result.current.room?.joined).toBe(true);
  expect(client.rooms.has(roomId)).toBe(true);
  second.unmount();
  expect(client.rooms.has(roomId)).toBe(false);
  expect(client.status.state).toBe("connected");
  client.disconnect();
});

it("is connected without a room", async () => {
  const mine = hook(null);
  await waitFor(() => expect(mine.result.current.status.state).toBe("connected"), LIMIT);
  expect(mine.result.current.room).toBeNull();
});
