import { waitFor } from "@testing-library/react";
import { hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { SeatMap } from "../src/index.js";
import { Proxy } from "../../js/test/proxy.js";
import { Server, unique } from "../../js/test/server.js";

let server: Server;
beforeAll(async () => void (server = await new Server().start()));
afterAll(() => server.remove());

/** As where there is no browser: nothing of one may be looked at. */
function renderOnServer(element: React.ReactElement): string {
  for (const name of ["window", "document", "navigator", "sessionStorage", "WebSocket"]) vi.stubGlobal(name, undefined);
  try {
    return renderToString(element);
  } finally {
    vi.unstubAllGlobals();
  }
}

it("renders on a server, connects nowhere, and is taken over by the browser without a complaint", async () => {
  const proxy = await new Proxy(server.port).start();
  const element = <SeatMap roomId={unique("room")} url={proxy.url} clientId={unique("me")} language="es" />;
  const html = renderOnServer(element);
  expect(html).toContain('data-seat="J15"');
  expect(html).toContain("Desconectado");
  expect(proxy.handshakes).toBe(0);

  const root = document.createElement("div");
  root.innerHTML = html;
  document.body.append(root);
  const app = hydrateRoot(root, element);
  await waitFor(() => expect(root.querySelector(".status-connected")).not.toBeNull(), { timeout: 30_000 });
  expect(proxy.handshakes).toBe(1);
  app.unmount();
  root.remove();
  await proxy.stop();
});
