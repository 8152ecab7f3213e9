import { mount } from "@vue/test-utils";
import { KeepAlive, defineComponent, effectScope, h, nextTick, ref, shallowRef } from "vue";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { SeatSelectionClient, useSeatSelection } from "../src/index.js";
import type { SeatSelection, SessionOptions } from "../src/index.js";
import { Proxy } from "../../js/test/proxy.js";
import { Server, unique } from "../../js/test/server.js";
import { stats, visitor } from "../../seatmap/test/people.js";

let server: Server;
beforeAll(async () => void (server = await new Server().start()));
afterAll(() => server.remove());

const LIMIT = { timeout: 30_000 }; // for a hang, never for timing

/** A component that uses the composable. */
function use(room: string | null, more: SessionOptions = {}) {
  const roomId = ref(room);
  const options = shallowRef<SessionOptions>({ url: server.url, clientId: unique("me"), ...more });
  let selection!: SeatSelection;
  const component = defineComponent(() => {
    selection = useSeatSelection(roomId, options);
    return () => h("p", selection.seat("A1").state);
  });
  const wrapper = mount(component);
  const joined = () => vi.waitFor(() => expect(selection.room.value?.joined).toBe(true), LIMIT);
  return { ...selection, roomId, options, wrapper, joined };
}

it("connects when it is mounted, joins, and renders what changes", async () => {
  const roomId = unique("room");
  const other = await visitor(server.url, roomId);
  const mine = use(roomId);
  await nextTick();
  expect(mine.status.value.state).toBe("connecting");
  await mine.joined();
  expect(mine.status.value).toMatchObject({ state: "connected", transport: "websocket" });
  await other.selectSeat("A1", { name: "María" });
  await vi.waitFor(() => expect(mine.wrapper.text()).toBe("other"), LIMIT);
  expect(mine.seat("A1").user_info).toEqual({ name: "María" });
  await other.releaseSeat("A1");
  await vi.waitFor(() => expect(mine.wrapper.text()).toBe("free"), LIMIT);
});

it("shows a seat as mine at once, then with its deadline, and free again after the release", async () => {
  const mine = use(unique("room"));
  await mine.joined();
  mine.toggleSeat("A1");
  expect(mine.seat("A1")).toMatchObject({ state: "mine", pending: true, expires_at: null });
  await vi.waitFor(() => expect(mine.seat("A1").expires_at).not.toBeNull(), LIMIT);
  expect(mine.mine.value.map((seat) => seat.seat_id)).toEqual(["A1"]);
  mine.toggleSeat("A1");
  expect(mine.mine.value).toEqual([]);
  await vi.waitFor(() => expect(mine.seat("A1")).toMatchObject({ state: "free", pending: false }), LIMIT);
});

it("rolls a refused seat back, rejects the promise and says so in the notice", async () => {
  const roomId = unique("room");
  const other = await visitor(server.url, roomId);
  await other.selectSeat("C3");
  const errors: string[] = [];
  const mine = use(roomId, { onError: (error) => void errors.push(error.code) });
  await mine.joined();
  await expect(mine.selectSeat("C3")).rejects.toMatchObject({ code: "seat_taken" });
  expect(mine.notice.value).toMatchObject({ kind: "refused", seatIds: ["C3"] });
  expect(mine.seat("C3").state).toBe("other");
  expect(errors).toEqual(["seat_taken"]);
  mine.dismissNotice();
  expect(mine.notice.value).toBeNull();
});

it("selects several seats or none", async () => {
  const roomId = unique("room");
  const other = await visitor(server.url, roomId);
  await other.selectSeat("D2");
  const mine = use(roomId);
  await mine.joined();
  await expect(mine.selectSeats(["D1", "D2"])).rejects.toMatchObject({ code: "seat_taken" });
  expect(mine.notice.value?.seatIds).toEqual(["D2"]);
  await mine.selectSeats(["D3", "D4"]);
  expect(mine.mine.value.map((seat) => seat.seat_id)).toEqual(["D3", "D4"]);
});

it("follows the room, and leaves the old one", async () => {
  const [first, second] = [unique("room"), unique("room")];
  const mine = use(first);
  await mine.joined();
  await mine.selectSeat("A1");
  mine.roomId.value = second;
  await nextTick();
  expect(mine.mine.value).toEqual([]);
  await vi.waitFor(() => expect(mine.room.value).toMatchObject({ room_id: second, joined: true }), LIMIT);
  await vi.waitFor(async () => expect((await stats(server.url)).rooms[first]?.connections).toBe(0), LIMIT);
  mine.roomId.value = first;
  await vi.waitFor(() => expect(mine.seat("A1").state).toBe("mine"), LIMIT);
});

it("keeps its client when options stay the same, and takes a new one for another server or visitor", async () => {
  const mine = use(unique("room"));
  await mine.joined();
  const client = mine.client.value;
  mine.options.value = { ...mine.options.value, userInfo: { name: "Ana" } };
  await nextTick();
  expect(mine.client.value).toBe(client);
  mine.options.value = { ...mine.options.value, clientId: unique("me") };
  await nextTick();
  expect(mine.client.value).not.toBe(client);
  expect(client.status.state).toBe("disconnected");
  await mine.joined();
});

it("makes one connection, and has none after it was unmounted", async () => {
  const proxy = await new Proxy(server.port).start();
  const roomId = unique("room");
  const mine = use(roomId, { url: proxy.url });
  await mine.joined();
  await mine.selectSeat("A1");
  expect(proxy.handshakes).toBe(1);
  const client = mine.client.value;
  mine.wrapper.unmount();
  expect(client.status.state).toBe("disconnected");
  expect(client.ws).toBeNull();
  await vi.waitFor(async () => expect((await stats(server.url)).rooms[roomId]?.connections ?? 0).toBe(0), LIMIT);
  await proxy.stop();
});

it("comes back by itself, with its seats, when the connection breaks", async () => {
  const proxy = await new Proxy(server.port).start();
  const mine = use(unique("room"), { url: proxy.url });
  await mine.joined();
  await mine.selectSeat("A1");
  proxy.isDown = true; // until it was seen: the first attempt to come back may take no time
  proxy.cut();
  await vi.waitFor(() => expect(mine.room.value?.joined).toBe(false), LIMIT);
  proxy.isDown = false;
  expect(mine.seat("A1").state).toBe("mine");
  await mine.joined();
  mine.wrapper.unmount();
  await proxy.stop();
});

it("rests while it is kept alive out of sight", async () => {
  const proxy = await new Proxy(server.port).start();
  const roomId = unique("room");
  let selection!: SeatSelection;
  const Kept = defineComponent(() => {
    selection = useSeatSelection(roomId, { url: proxy.url, clientId: unique("me") });
    return () => h("p");
  });
  const visible = ref(true);
  const wrapper = mount(() => h(KeepAlive, () => (visible.value ? h(Kept) : null)));
  const joined = () => vi.waitFor(() => expect(selection.room.value?.joined).toBe(true), LIMIT);
  await joined();
  expect(proxy.handshakes).toBe(1);
  visible.value = false;
  await vi.waitFor(() => expect(selection.status.value.state).toBe("disconnected"), LIMIT);
  visible.value = true;
  await joined();
  expect(proxy.handshakes).toBe(2);
  wrapper.unmount();
  await proxy.stop();
});

it("shares a client of the page's own between maps, also out of components", async () => {
  const roomId = unique("room");
  const client = new SeatSelectionClient(server.url, { clientId: unique("me") });
  client.connect();
  const scope = effectScope();
  const first = scope.run(() => useSeatSelection(roomId, { client }))!;
  const second = use(roomId, { client });
  await second.joined();
  first.toggleSeat("A1");
  await vi.waitFor(() => expect(second.seat("A1")).toMatchObject({ state: "mine", pending: false }), LIMIT);
  scope.stop();
  expect(client.rooms.has(roomId)).toBe(true);
  second.wrapper.unmount();
  expect(client.rooms.has(roomId)).toBe(false);
  expect(client.status.state).toBe("connected");
  client.disconnect();
});
