/** Clients for the tests, disconnected at the end of each. */

import { afterEach, vi } from "vitest";
import { SeatSelectionClient } from "../src/seat-selection-client.js";
import { unique } from "./server.js";

const all = new Set();

afterEach(() => {
  for (const client of all) client.disconnect();
  all.clear();
});

/** A client that is not connected, and keeps what it was told in `heard`, by event. */
export function make(url, options = {}) {
  const client = new SeatSelectionClient(url, { clientId: unique("c"), ...options });
  all.add(client);
  client.heard = {};
  for (const type of ["change", "status", "error", "expiring", "message", "sent"]) {
    client.heard[type] = [];
    client.on(type, (event) => client.heard[type].push(event));
  }
  return client;
}

/** A client that is in a room. */
export async function join(url, room, options) {
  const client = make(url, options);
  client.connect();
  await client.joinRoom(room);
  return client;
}

/** What a promise was rejected with. */
export async function reason(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it was not rejected");
}

/** Let backoffs be short, but no busy loop. */
export const hurry = () => vi.spyOn(Math, "random").mockReturnValue(0.02);

/** A page's window and document, as far as the client looks at them. */
export function fakePage() {
  const page = new EventTarget();
  const document = new EventTarget();
  document.visibilityState = "visible";
  const listening = { online: 0, visibilitychange: 0 };
  const count = (target, method, by) => {
    const original = EventTarget.prototype[method].bind(target);
    return (type, listener) => {
      listening[type] += by;
      original(type, listener);
    };
  };
  for (const [target, stub] of [[page, globalThis], [document, document]]) {
    for (const [method, by] of [["addEventListener", 1], ["removeEventListener", -1]]) {
      const counted = count(target, method, by);
      if (stub === globalThis) vi.stubGlobal(method, counted);
      else Object.defineProperty(stub, method, { value: counted });
    }
  }
  vi.stubGlobal("document", document);
  return {
    listening,
    online: () => page.dispatchEvent(new Event("online")),
    show: () => document.dispatchEvent(new Event("visibilitychange")),
  };
}
