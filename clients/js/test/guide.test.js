/** The guide's own code, word for word, with this client in place of its class. */

import { readFileSync } from "node:fs";
import WebSocket from "ws";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { SeatSelectionClient } from "../src/seat-selection-client.js";
import { join } from "./clients.js";
import { Server, unique, until } from "./server.js";

const guide = readFileSync(new URL("../../../tests/data/guia-websocket.md", import.meta.url), "utf8");
const server = new Server();

beforeAll(() => server.start());
afterAll(() => server.remove());

/** The guide's server is at the default address; this one is where there was room. */
function atDefaultAddress() {
  vi.stubGlobal(
    "WebSocket",
    class extends WebSocket {
      constructor(url, protocols) {
        super(url.replace("ws://localhost:8001", server.url), protocols);
      }
    },
  );
}
afterEach(() => vi.unstubAllGlobals());

/** The guide's Vue component, as Vue would run its script, but for the template. */
function guideComponent(funcionId) {
  const script = /```vue[^]*?<script>([^]*?)<\/script>/.exec(guide)[1];
  const [found, body] = /import \{ SeatSelectionClient \} from '.\/SeatSelectionClient.js';\s*export default (\{[^]*\});/.exec(script);
  expect(found).toBeTruthy();
  const options = new Function("SeatSelectionClient", `return ${body}`)(SeatSelectionClient);
  const component = Object.assign({ funcionId }, options.data());
  for (const [name, method] of Object.entries(options.methods)) component[name] = method.bind(component);
  return { component, mount: options.mounted.bind(component), unmount: options.beforeUnmount.bind(component) };
}

test("every method of the guide's class is there, with its parameters", () => {
  const source = /```javascript\s*(class SeatSelectionClient \{[^]*?\n\})\s*```/.exec(guide)[1];
  const original = new Function(`return ${source}`)();
  for (const name of Object.getOwnPropertyNames(original.prototype)) {
    if (name === "constructor") continue;
    expect(SeatSelectionClient.prototype[name], name).toBeTypeOf("function");
  }
  const [theirs, ours] = [new original(), new SeatSelectionClient()];
  for (const name of ["serverUrl", "ws", "currentRoom"]) expect(ours[name], name).toBe(theirs[name]);
  expect(ours.clientId).toMatch(/^user_\d{13}/);
  expect(new SeatSelectionClient().clientId).not.toBe(ours.clientId);
});

test("the guide's Vue component sees others' seats, and takes and releases its own", async () => {
  atDefaultAddress();
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  const room = unique("funcion");
  const bob = await join(server.url, room);
  await bob.selectSeat("B5", { name: "María García" });
  const { component, mount, unmount } = guideComponent(room);
  mount(); // joins while the socket is still connecting, which the guide's class does not survive
  await until(() => component.otherSelections.has("B5"));
  expect(log).toHaveBeenCalledWith("Unido a la sala:", room);
  expect(component.otherSelections.get("B5").user_info).toEqual({ name: "María García" });
  expect(component.getSeatClass("B5")).toBe("seat other-selected");

  component.handleSeatClick("A1");
  await until(() => bob.seat("A1").state === "other");
  expect(bob.seat("A1").user_info).toEqual({ name: "Usuario Actual", email: "usuario@example.com" });
  expect(component.getSeatClass("A1")).toBe("seat selected");
  await bob.selectSeat("B6");
  await until(() => component.otherSelections.has("B6"));
  await bob.releaseSeat("B6");
  await until(() => !component.otherSelections.has("B6"));
  component.handleSeatClick("A1");
  await until(() => bob.seat("A1").state === "free");

  const { client } = component;
  unmount();
  expect(client.status.state).toBe("disconnected");
  expect(component.isConnected).toBe(false);
});

test("code written for the guide's class gets the frames that the guide promises", async () => {
  atDefaultAddress();
  const room = unique("funcion");
  const bob = await join(server.url, room);
  const client = new SeatSelectionClient();
  const messages = [];
  const closed = vi.fn();
  client.setMessageCallback((message) => messages.push(message));
  client.setErrorCallback((error) => expect.fail(error.message));
  client.setCloseCallback(closed);
  client.connect();
  client.joinRoom(room);
  client.selectSeat("A1", { name: "Juan Pérez" });
  client.ping();
  const of = (type) => messages.filter((message) => message.type === type);
  await until(() => of("seat_selected").length === 1 && of("pong").length === 2);
  expect(of("room_joined")).toEqual([{ type: "room_joined", room_id: room, client_id: client.clientId, request_id: expect.any(String) }]);
  expect(of("current_selections")[0].selections).toEqual([]);
  expect(of("seat_selected")[0]).toMatchObject({ seat_id: "A1", room_id: room, client_id: client.clientId });
  await bob.selectSeat("B5", { name: "María García" });
  await until(() => of("seat_selected").length === 2);
  expect(of("seat_selected")[1]).toMatchObject({ seat_id: "B5", user_info: { name: "María García" } });
  client.releaseSeat("A1");
  await until(() => of("seat_released").length === 1);
  client.leaveRoom();
  await until(() => of("room_left").length === 1);
  client.disconnect();
  expect(closed).toHaveBeenCalledOnce();
});
