import { renderToString } from "@vue/server-renderer";
import { createSSRApp } from "vue";
import type { App } from "vue";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { SeatMap } from "../src/index.js";
import { Proxy } from "../../js/test/proxy.js";
import { Server, unique } from "../../js/test/server.js";

let server: Server;
beforeAll(async () => void (server = await new Server().start()));
afterAll(() => server.remove());

/** As where there is no browser: nothing of one may be looked at. */
async function renderOnServer(app: App): Promise<string> {
  for (const name of ["window", "document", "navigator", "sessionStorage", "WebSocket"]) vi.stubGlobal(name, undefined);
  try {
    return await renderToString(app);
  } finally {
    vi.unstubAllGlobals();
  }
}

it("renders on a server, connects nowhere, and is taken over by the browser without a complaint", async () => {
  const proxy = await new Proxy(server.port).start();
  const options = { url: proxy.url, clientId: unique("me") };
  const app = () => createSSRApp(SeatMap, { roomId: "r1", options, language: "es" });
  const html = await renderOnServer(app());
  expect(html).toContain('data-seat="J15"');
  expect(html).toContain("Desconectado");
  expect(proxy.handshakes).toBe(0);

  const root = document.createElement("div");
  root.innerHTML = html;
  document.body.append(root);
  const inBrowser = app();
  inBrowser.mount(root);
  await vi.waitFor(() => expect(root.querySelector(".status-connected")).not.toBeNull(), { timeout: 30_000 });
  expect(proxy.handshakes).toBe(1);
  inBrowser.unmount();
  root.remove();
  await proxy.stop();
});
