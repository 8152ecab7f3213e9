import { compileScript, compileTemplate, parse, rewriteDefault } from "@vue/compiler-sfc";
import { mount } from "@vue/test-utils";
import ts from "typescript";
import * as Vue from "vue";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { SeatSelectionClient } from "@seatws/client";
import { Server, unique } from "../../js/test/server.js";
import { GuideClient, guideVue, redirect } from "../../seatmap/test/guide.js";
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
function guideComponent(client: unknown): Vue.Component {
  const { descriptor } = parse(guideVue(), { filename: "Guide.vue" });
  const script = rewriteDefault(compileScript(descriptor, { id: "guide" }).content, "component");
  const template = compileTemplate({ source: descriptor.template!.content, filename: "Guide.vue", id: "guide" });
  const code = `${script}\n${template.code}\nexport default { ...component, render };`;
  const options = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 };
  const { outputText } = ts.transpileModule(code, { compilerOptions: options });
  const exports: { default?: Vue.Component } = {};
  const modules: Record<string, unknown> = { vue: Vue, "./SeatSelectionClient.js": { SeatSelectionClient: client } };
  new Function("exports", "require", outputText)(exports, (name: string) => modules[name]);
  return exports.default!;
}

it.each([
  ["its own client", GuideClient, false],
  ["ours", () => SeatSelectionClient, true],
])("the guide's Vue component sees others and selects, with %s", async (_, client, joinsAtOnce) => {
  const roomId = unique("funcion");
  const other = await visitor(server.url, roomId);
  // The guide's client throws while it is connecting, so its component gets no room, and joins it later.
  const wrapper = mount(guideComponent(client()), { props: { funcionId: joinsAtOnce ? roomId : "" } });
  const guide = (wrapper.vm as unknown as { client: SeatSelectionClient }).client;
  if (!joinsAtOnce) {
    await vi.waitFor(() => expect(guide.ws?.readyState).toBe(WebSocket.OPEN), LIMIT);
    guide.joinRoom(roomId);
  }
  await other.selectSeat("B5", { name: "María" });
  const seat = (name: string) => wrapper.findAll("button").find((each) => each.text() === name)!;
  await vi.waitFor(() => expect(seat("B5").classes()).toContain("other-selected"), LIMIT);

  await seat("A1").trigger("click");
  await vi.waitFor(() => expect(other.seat("A1")).toMatchObject({ state: "other", client_id: guide.clientId }), LIMIT);
  expect(other.seat("A1").user_info).toEqual({ name: "Usuario Actual", email: "usuario@example.com" });
  await other.releaseSeat("B5");
  await vi.waitFor(() => expect(seat("B5").classes()).toEqual(["seat"]), LIMIT);
});
