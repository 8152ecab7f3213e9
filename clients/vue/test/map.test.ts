import { mount } from "@vue/test-utils";
import axe from "axe-core";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { SeatMap, gridHall } from "../src/index.js";
import type { Hall, Language, SessionOptions, Words } from "../src/index.js";
import { Server, unique } from "../../js/test/server.js";
import { visitor } from "../../seatmap/test/people.js";

let server: Server;
beforeAll(async () => void (server = await new Server({ SEATWS_HOLDS__MAX_SEATS_PER_CLIENT: "2" }).start()));
afterAll(() => server.remove());

const LIMIT = { timeout: 30_000 }; // for a hang, never for timing
// Not what looks at pixels: jsdom paints nothing.
const UNPAINTED = { rules: { "color-contrast": { enabled: false }, "label-content-name-mismatch": { enabled: false } } };
interface More {
  options?: SessionOptions;
  hall?: Hall;
  unavailable?: string[];
  language?: Language;
  words?: Partial<Words>;
}

/** A map in the browser, live when this returns. */
async function show({ options, ...more }: More = {}) {
  const roomId = unique("room");
  const props = { roomId, options: { url: server.url, clientId: unique("me"), ...options }, ...more };
  const wrapper = mount(SeatMap, { props, attachTo: document.body });
  const seat = (id: string) => wrapper.get<HTMLButtonElement>(`[data-seat="${id}"]`);
  const notice = () => wrapper.get("[aria-live=assertive]").text();
  const becomes = (id: string, classes: string) =>
    vi.waitFor(() => expect(seat(id).attributes("class")).toBe(classes), LIMIT);
  await vi.waitFor(() => expect(wrapper.get("[role=grid]").attributes("aria-busy")).toBe("false"), LIMIT);
  return { wrapper, roomId, seat, notice, becomes };
}

it("is the guide's hall of A1 to J15, as a grid, in the guide's classes", async () => {
  const { wrapper, seat } = await show();
  const rows = wrapper.get("[role=grid][aria-label='Seat map']").findAll("[role=row]");
  expect(rows).toHaveLength(10);
  expect(rows[9]!.findAll("[role=gridcell]")).toHaveLength(15);
  expect(seat("J15").classes()).toEqual(["seat"]);
  expect(wrapper.find(".connection-status .status-indicator.status-connected").exists()).toBe(true);
  for (const name of ["seat-grid", "seat-row", "selected-seats"]) expect(wrapper.find(`.${name}`).exists()).toBe(true);
});

it("can't be clicked before it is live", async () => {
  const wrapper = mount(SeatMap, { props: { roomId: unique("room"), options: { url: "ws://127.0.0.1:1" } } });
  const seat = wrapper.get("[data-seat=A1]");
  expect(seat.attributes()).toMatchObject({ class: "seat unavailable", "aria-disabled": "true" });
  await seat.trigger("click");
  expect(seat.attributes("aria-pressed")).toBe("false");
  expect(wrapper.find(".status-connecting").exists()).toBe(true);
});

it("selects with a click, counts down, and gives the seat back with another", async () => {
  const { wrapper, seat, becomes } = await show();
  await seat("B2").trigger("click");
  await becomes("B2", "seat selected");
  expect(seat("B2").attributes()).toMatchObject({ "aria-pressed": "true", "aria-label": "B2, yours" });
  const first = wrapper.get("[role=timer]").text();
  expect(first).toMatch(/^(5:00|4:5\d)$/);
  await vi.waitFor(() => expect(wrapper.get("[role=timer]").text()).not.toBe(first), LIMIT);
  await seat("B2").trigger("click");
  await becomes("B2", "seat");
  const counts = wrapper.emitted<[unknown[]]>("change")!.map(([mine]) => mine.length);
  expect(counts).toContain(1);
  expect(counts.at(-1)).toBe(0);
});

it("gives a seat back from the list, too, and keeps the focus near", async () => {
  const { wrapper, seat, becomes } = await show();
  await seat("B2").trigger("click");
  await becomes("B2", "seat selected");
  await wrapper.get("[aria-label='Release B2']").trigger("click");
  await becomes("B2", "seat");
  expect(document.activeElement?.textContent).toBe("My seats");
});

it("shows others' seats with their holder's name as text, whatever it is", async () => {
  const { wrapper, roomId, seat, notice, becomes } = await show();
  const other = await visitor(server.url, roomId);
  await other.selectSeat("C3", { name: "<img src=x onerror=alert(1)>" });
  await becomes("C3", "seat other-selected");
  expect(seat("C3").attributes("aria-label")).toBe("C3, taken by <img src=x onerror=alert(1)>");
  expect(wrapper.find("img").exists()).toBe(false);
  await seat("C3").trigger("click");
  expect(seat("C3").attributes("class")).toBe("seat other-selected");
  expect(notice()).toBe("");
});

it("says aloud that a seat was refused, marks it, and stops when told", async () => {
  const { wrapper, seat, notice, becomes } = await show();
  for (const id of ["A1", "A2"]) {
    await seat(id).trigger("click");
    await becomes(id, "seat selected");
  }
  await seat("A3").trigger("click");
  await vi.waitFor(() => expect(notice()).toBe("You can't choose more seats in this showing."), LIMIT);
  expect(seat("A3").attributes("class")).toBe("seat refused");
  await wrapper.get("[aria-label='Close notice']").trigger("click");
  expect(notice()).toBe("");
  expect(seat("A3").attributes("class")).toBe("seat");
});

it("is one stop for the Tab key, and moves by arrows, Home and End", async () => {
  const { wrapper, seat } = await show({ hall: [["A1", "A2", null, "A3"], [], ["B1", null, "B2"]] });
  const stops = () => wrapper.findAll("[data-seat][tabindex='0']").map((each) => each.attributes("data-seat"));
  expect(stops()).toEqual(["A1"]);
  seat("A1").element.focus();
  const focused = () => (document.activeElement as HTMLElement).dataset.seat!;
  const path: string[] = [];
  for (const key of ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "Home", "ArrowUp", "End", "PageDown", "x"]) {
    await seat(focused()).trigger("keydown", { key });
    path.push(focused());
  }
  expect(path).toEqual(["A2", "A3", "A3", "B2", "B1", "A1", "A3", "B2", "B2"]);
  expect(stops()).toEqual(["B2"]);
});

it("keeps seats that the page calls unavailable from being chosen", async () => {
  const { seat } = await show({ unavailable: ["A1"] });
  expect(seat("A1").attributes()).toMatchObject({ class: "seat unavailable", "aria-label": "A1, not available" });
  await seat("A1").trigger("click");
  expect(seat("A1").attributes("class")).toBe("seat unavailable");
});

it("speaks Spanish when told, and the page's own words", async () => {
  const { wrapper, seat } = await show({ language: "es", words: { mySeats: "Tus butacas" } });
  expect(wrapper.get(".connection-status").text()).toBe("Conectado");
  expect(wrapper.get("h3").text()).toBe("Tus butacas");
  expect(seat("A1").attributes("aria-label")).toBe("A1, libre");
});

it("warns before a hold ends, and says that it has ended", async () => {
  const short = await new Server({ SEATWS_HOLDS__SECONDS: "5" }).start();
  const { wrapper, seat, notice } = await show({ options: { url: short.url } });
  const said: string[] = [];
  const whole = { childList: true, characterData: true, subtree: true };
  new MutationObserver(() => void said.push(notice())).observe(wrapper.get("[aria-live=assertive]").element, whole);
  await seat("A1").trigger("click");
  await vi.waitFor(() => expect(said.at(-1)).toBe("Time is up: A1 is no longer yours."), LIMIT);
  expect(said.at(-2)).toMatch(/^Your hold on A1 ends in 0:0\d\.$/);
  expect(seat("A1").attributes("class")).toBe("seat");
  wrapper.unmount();
  await short.remove();
});

it("has nothing that axe objects to, with seats of all kinds and a refusal", async () => {
  const { wrapper, roomId, seat, notice } = await show({ hall: gridHall(3, 4), unavailable: ["B4"] });
  const other = await visitor(server.url, roomId);
  await other.selectSeat("C3", { name: "María" });
  for (const id of ["A1", "A2", "A3"]) await seat(id).trigger("click");
  await vi.waitFor(() => expect(notice()).not.toBe(""), LIMIT);
  await vi.waitFor(() => expect(wrapper.findAll(".other-selected, .selected")).toHaveLength(3), LIMIT);
  const { violations } = await axe.run(wrapper.element, UNPAINTED);
  expect(violations.map(({ id, nodes }) => [id, nodes[0]?.html])).toEqual([]);
});
