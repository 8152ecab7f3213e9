import * as React from "react";
import { fireEvent, render, waitFor } from "@testing-library/react";
import ts from "typescript";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { SeatSelectionClient } from "@seatws/client";
import { Server, unique } from "../../js/test/server.js";
import { GuideClient, guideReact, redirect } from "../../seatmap/test/guide.js";
import { visitor } from "../../seatmap/test/people.js";

let server: Server;
let restore: () => void;
beforeAll(async () => {
  server = await new Server().start();
  restore = redirect(server.port);
  vi.spyOn(console, "log").mockImplementation(() => {});
});
afterAll(() => {
  restore();
  return server.remove();
});

const LIMIT = { timeout: 30_000 }; // for a hang, never for timing

/** The guide's component with a client class of one's choice, compiled as a bundler would. */
function guideComponent(client: unknown): React.FC<{ funcionId?: string }> {
  const options = { module: ts.ModuleKind.CommonJS, jsx: ts.JsxEmit.React, target: ts.ScriptTarget.ES2022, esModuleInterop: true };
  const { outputText } = ts.transpileModule(guideReact(), { compilerOptions: options, fileName: "guide.jsx" });
  const exports: { default?: React.FC<{ funcionId?: string }> } = {};
  new Function("exports", "require", "SeatSelectionClient", outputText)(exports, () => React, client);
  return exports.default!;
}

it.each([
  ["its own client", GuideClient, false],
  ["ours", () => SeatSelectionClient, true],
])("the guide's React component sees others and selects, with %s", async (_, client, joinsAtOnce) => {
  const roomId = unique("funcion");
  const other = await visitor(server.url, roomId);
  let connected!: { ws: WebSocket; clientId: string };
  const Client = client() as new () => typeof connected;
  const Kept = class extends Client {
    constructor() {
      super();
      connected = this;
    }
  };
  const Guide = guideComponent(Kept);
  // The guide's client throws while it is connecting, so its component gets the room later.
  const { rerender, container } = render(<Guide funcionId={joinsAtOnce ? roomId : undefined} />);
  if (!joinsAtOnce) {
    await waitFor(() => expect(connected.ws.readyState).toBe(WebSocket.OPEN), LIMIT);
    rerender(<Guide funcionId={roomId} />);
  }
  await other.selectSeat("B5", { name: "María" });
  const seat = (name: string) => [...container.querySelectorAll("button")].find((each) => each.textContent?.trim() === name)!;
  await waitFor(() => expect(seat("B5").className).toContain("other-selected"), LIMIT);

  fireEvent.click(seat("A1"));
  await waitFor(() => expect(other.seat("A1")).toMatchObject({ state: "other", client_id: connected.clientId }), LIMIT);
  expect(other.seat("A1").user_info).toEqual({ name: "Usuario Actual", email: "usuario@example.com" });
  await other.releaseSeat("B5");
  await waitFor(() => expect(seat("B5").className).not.toContain("other-selected"), LIMIT);
});
