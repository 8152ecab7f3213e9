/** Signing in, on a real server that asks for tokens. */

import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { hurry, join, make, reason } from "./clients.js";
import { Proxy } from "./proxy.js";
import { Server, token, unique, until } from "./server.js";

const server = new Server({}, { signIn: { warnSeconds: 2 } });
const strict = new Server({}, { signIn: { warnSeconds: 0 } });
let proxy;

beforeAll(() => Promise.all([server.start(), strict.start()]));
afterAll(() => Promise.all([server.remove(), strict.remove()]));
beforeEach(async () => {
  hurry();
  proxy = await new Proxy(server.port).start();
});
afterEach(() => proxy.stop());

test.each(["subprotocol", "message"])("a token signs in by %s, and is seen nowhere", async (tokenVia) => {
  const clientId = unique("ann");
  const secret = token(clientId);
  const ann = await join(server.url, unique("r"), { clientId, tokenVia, token: secret });
  expect(ann.heard.message[0]).toMatchObject({ type: "auth_ok", client_id: clientId });
  await ann.selectSeat("A1");
  ann.setToken(token(clientId, 1000));
  await until(() => ann.heard.message.filter((message) => message.type === "auth_ok").length === 2);
  expect(ann.heard.sent.at(-1)).toEqual({ type: "auth", token: "…" });
  expect(JSON.stringify(ann.heard.sent)).not.toContain(secret.slice(-20));
});

test("a string that is refused ends it, and another one begins anew", async () => {
  const clientId = unique("ann");
  const closed = vi.fn();
  const ann = make(server.url, { clientId, token: "not.a.token" });
  ann.setCloseCallback(closed);
  ann.setErrorCallback(closed);
  const asked = ann.joinRoom(unique("r"));
  ann.connect();
  expect(await reason(asked)).toMatchObject({ code: "aborted" });
  await until(() => closed.mock.calls.length === 2);
  expect(ann.status).toMatchObject({ state: "disconnected", code: 4401 });
  expect(ann.heard.error).toMatchObject([{ code: "closed", close_code: 4401 }]);
  ann.setToken(token(clientId));
  ann.connect();
  await until(() => ann.room.joined);
});

test("a token of someone else ends it", async () => {
  const ann = make(server.url, { token: token("bob") });
  ann.connect();
  await until(() => ann.status.state === "disconnected");
  expect(ann.status.code).toBe(4403);
});

test("a function is asked once, kept to over reconnects, and asked again after a refusal", async () => {
  const clientId = unique("ann");
  const asked = [];
  const ann = await join(proxy.url, unique("r"), {
    clientId,
    token: async (why) => {
      asked.push(why);
      return asked.length === 1 ? "not.a.token" : token(clientId);
    },
  });
  expect(asked).toEqual([{ renew: false }, { renew: true }]);
  expect(ann.heard.error).toEqual([]);
  proxy.cut();
  await until(() => ann.status.state === "connecting");
  await until(() => ann.room.joined);
  expect(asked.length).toBe(2);
});

test("a function whose tokens are all refused is asked three times, and then it ends", async () => {
  const tokens = vi.fn(() => "not.a.token");
  const ann = make(server.url, { token: tokens });
  ann.connect();
  await until(() => ann.status.state === "disconnected");
  expect(tokens).toHaveBeenCalledTimes(3);
  expect(ann.heard.error).toMatchObject([{ code: "closed", close_code: 4401 }]);
});

test("before a token ends it is renewed on the connection that stands", async () => {
  const clientId = unique("ann");
  const asked = [];
  const ann = await join(server.url, unique("r"), {
    clientId,
    token: ({ renew }) => {
      asked.push(renew);
      return token(clientId, renew ? 3600 : 3);
    },
  });
  await until(() => ann.heard.message.filter((message) => message.type === "auth_ok").length === 2);
  expect(asked).toEqual([false, true]);
  expect(ann.heard.status.map((status) => status.state)).toEqual(["connecting", "connected"]);
});

test("the same token once more is not sent, and not sent again and again", async () => {
  const clientId = unique("ann");
  const only = token(clientId, 2);
  const ann = await join(server.url, unique("r"), { clientId, token: () => only });
  await until(() => ann.heard.message.some((message) => message.type === "auth_expiring"));
  await until(() => ann.status.state === "disconnected");
  expect(ann.heard.sent.map((frame) => frame.type)).not.toContain("auth");
});

test("a token that ends without warning is renewed by coming back", async () => {
  const clientId = unique("ann");
  const ann = await join(strict.url, unique("r"), {
    clientId,
    token: ({ renew }) => token(clientId, renew ? 3600 : 2),
  });
  await until(() => ann.status.code === 4401);
  await until(() => ann.room.joined);
  expect(ann.heard.error).toEqual([]);
  await ann.selectSeat("A1");
});

test.each([
  ["throws", () => { throw new Error("no session"); }],
  ["rejects", () => Promise.reject(new Error("no session"))],
  ["never answers", () => new Promise(() => {})],
])("a function that %s is asked again, and the page is told", async (_, bad) => {
  const clientId = unique("ann");
  let calls = 0;
  const ann = make(server.url, {
    clientId,
    requestTimeout: 300,
    token: (why) => (++calls < 3 ? bad() : token(clientId, 3600, why)),
  });
  ann.connect();
  ann.joinRoom(unique("r"));
  await until(() => ann.room.joined);
  const told = ann.heard.error.filter((error) => error.code === "token_failed");
  expect(told.length).toBe(2);
  expect(told[0].retryable).toBe(true);
});

test("disconnecting while a function thinks makes no connection, and the next one asks anew", async () => {
  const clientId = unique("ann");
  const answers = [];
  const ann = make(proxy.url, { clientId, token: () => new Promise((resolve) => answers.push(resolve)) });
  ann.connect();
  await until(() => answers.length === 1);
  ann.disconnect();
  answers[0](token(clientId));
  ann.connect();
  await until(() => answers.length === 2);
  expect(proxy.handshakes).toBe(0);
  answers[1](token(clientId));
  await ann.joinRoom(unique("r"));
  expect(proxy.handshakes).toBe(1);
});

test("polling signs in, too, and renews a token that ended", async () => {
  proxy.webSockets = "refuse";
  const clientId = unique("ann");
  const asked = [];
  const ann = await join(proxy.url, unique("r"), {
    clientId,
    token: ({ renew }) => {
      asked.push(renew);
      return token(clientId, renew ? 3600 : 2);
    },
  });
  await ann.selectSeat("A1");
  expect(ann.status.transport).toBe("polling");
  await until(() => asked.length === 2);
  await until(() => ann.status.transport === "polling" && ann.room.joined);
  await ann.selectSeat("A2");
  expect(ann.room.mine.length).toBe(2);
  expect(ann.heard.error).toEqual([]);
});

test("polling with a string that is refused ends", async () => {
  proxy.webSockets = "refuse";
  const ann = make(proxy.url, { token: "not.a.token" });
  ann.joinRoom(unique("r"));
  ann.connect();
  await until(() => ann.status.state === "disconnected");
  expect(ann.status.code).toBe(4401);
});
