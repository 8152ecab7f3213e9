import { fireEvent, render, waitFor } from "@testing-library/react";
import axe from "axe-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { SeatMap, gridHall } from "../src/index.js";
import type { SeatMapProps } from "../src/index.js";
import { Server, unique } from "../../js/test/server.js";
import { visitor } from "../../seatmap/test/people.js";

let server: Server;
beforeAll(async () => void (server = await new Server({ SEATWS_HOLDS__MAX_SEATS_PER_CLIENT: "2" }).start()));
afterAll(() => server.remove());

const LIMIT = { timeout: 30_000 }; // for a hang, never for timing
// Not what looks at pixels: jsdom paints nothing.
const UNPAINTED = { rules: { "color-contrast": { enabled: false }, "label-content-name-mismatch": { enabled: false } } };
const seat = (id: string) => document.querySelector<HTMLButtonElement>(`[data-seat="${id}"]`)!;
// By selectors: to find things by role among 150 seats takes jsdom long.
const grid = () => document.querySelector("[role=grid]")!;
const timer = () => document.querySelector("[role=timer]")!;
const button = (name: string) => document.querySelector(`button[aria-label="${name}"]`)!;
const notice = () => document.querySelector("[aria-live=assertive]")!;

/** A map in the browser, live when this returns. */
async function show(more: Partial<SeatMapProps> = {}) {
  const props = { roomId: unique("room"), url: server.url, clientId: unique("me"), ...more };
  const view = render(<SeatMap {...props} />);
  await waitFor(() => expect(grid().getAttribute("aria-busy")).toBe("false"), LIMIT);
  return { ...view, ...props };
}

it("is the guide's hall of A1 to J15, as a grid, in the guide's classes", async () => {
  await show();
  expect(grid().getAttribute("aria-label")).toBe("Seat map");
  const rows = grid().querySelectorAll("[role=row]");
  expect(rows).toHaveLength(10);
  expect(rows[9]!.querySelectorAll("[role=gridcell] > button")).toHaveLength(15);
  expect(seat("J15").className).toBe("seat");
  expect(document.querySelector(".connection-status .status-indicator.status-connected")).not.toBeNull();
  for (const name of ["seat-grid", "seat-row", "selected-seats"]) expect(document.querySelector(`.${name}`)).not.toBeNull();
});

it("can't be clicked before it is live", async () => {
  render(<SeatMap roomId={unique("room")} url="ws://127.0.0.1:1" />);
  expect(seat("A1").className).toBe("seat unavailable");
  expect(seat("A1").getAttribute("aria-disabled")).toBe("true");
  fireEvent.click(seat("A1"));
  expect(seat("A1").getAttribute("aria-pressed")).toBe("false");
  expect(document.querySelector(".status-connecting")).not.toBeNull();
});

it("selects with a click, counts down, and gives the seat back with another", async () => {
  const changes: number[] = [];
  await show({ onSelectionChange: (mine) => changes.push(mine.length) });
  fireEvent.click(seat("B2"));
  expect(seat("B2").className).toBe("seat selected pending");
  await waitFor(() => expect(seat("B2").className).toBe("seat selected"), LIMIT);
  expect(seat("B2").getAttribute("aria-pressed")).toBe("true");
  expect(seat("B2").getAttribute("aria-label")).toBe("B2, yours");
  expect(timer().textContent).toMatch(/^(5:00|4:5\d)$/);
  const first = timer().textContent;
  await waitFor(() => expect(timer().textContent).not.toBe(first), LIMIT);
  fireEvent.click(seat("B2"));
  await waitFor(() => expect(seat("B2").className).toBe("seat"), LIMIT);
  expect(changes.at(0)).toBe(0);
  expect(changes).toContain(1);
  expect(changes.at(-1)).toBe(0);
});

it("gives a seat back from the list, too, and keeps the focus near", async () => {
  await show();
  fireEvent.click(seat("B2"));
  await waitFor(() => expect(timer()).not.toBeNull(), LIMIT);
  fireEvent.click(button("Release B2"));
  await waitFor(() => expect(seat("B2").className).toBe("seat"), LIMIT);
  expect(document.activeElement?.textContent).toBe("My seats");
});

it("shows others' seats with their holder's name as text, whatever it is", async () => {
  const { roomId } = await show();
  const other = await visitor(server.url, roomId!);
  await other.selectSeat("C3", { name: "<img src=x onerror=alert(1)>" });
  await waitFor(() => expect(seat("C3").className).toBe("seat other-selected"), LIMIT);
  expect(seat("C3").getAttribute("aria-label")).toBe("C3, taken by <img src=x onerror=alert(1)>");
  expect(document.querySelector("img")).toBeNull();
  fireEvent.click(seat("C3"));
  expect(seat("C3").className).toBe("seat other-selected");
  expect(notice().textContent).toBe("");
});

it("says aloud that a seat was refused, marks it, and stops when told", async () => {
  await show();
  for (const id of ["A1", "A2"]) {
    fireEvent.click(seat(id));
    await waitFor(() => expect(seat(id).className).toBe("seat selected"), LIMIT);
  }
  fireEvent.click(seat("A3"));
  await waitFor(() => expect(notice().textContent).toBe("You can't choose more seats in this showing."), LIMIT);
  expect(seat("A3").className).toBe("seat refused");
  fireEvent.click(button("Close notice"));
  expect(notice().textContent).toBe("");
  expect(seat("A3").className).toBe("seat");
});

it("is one stop for the Tab key, and moves by arrows, Home and End", async () => {
  await show({ hall: [["A1", "A2", null, "A3"], [], ["B1", null, "B2"]] });
  const stops = () => [...document.querySelectorAll<HTMLElement>("[data-seat][tabindex='0']")].map((each) => each.dataset.seat);
  expect(stops()).toEqual(["A1"]);
  seat("A1").focus();
  const path: string[] = [];
  for (const key of ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "Home", "ArrowUp", "End", "PageDown", "x"]) {
    fireEvent.keyDown(document.activeElement!, { key });
    path.push((document.activeElement as HTMLElement).dataset.seat!);
  }
  expect(path).toEqual(["A2", "A3", "A3", "B2", "B1", "A1", "A3", "B2", "B2"]);
  expect(stops()).toEqual(["B2"]);
  fireEvent.keyDown(document.activeElement!, { key: "Home", ctrlKey: true });
  expect(stops()).toEqual(["A1"]);
});

it("keeps seats that the page calls unavailable from being chosen", async () => {
  await show({ unavailable: ["A1"] });
  expect(seat("A1").className).toBe("seat unavailable");
  expect(seat("A1").getAttribute("aria-label")).toBe("A1, not available");
  fireEvent.click(seat("A1"));
  expect(seat("A1").className).toBe("seat unavailable");
});

it("speaks Spanish when told, and the page's own words", async () => {
  await show({ language: "es", words: { mySeats: "Tus butacas" } });
  expect(document.querySelector(".connection-status")!.textContent).toBe("Conectado");
  expect(document.querySelector("h3")!.textContent).toBe("Tus butacas");
  expect(seat("A1").getAttribute("aria-label")).toBe("A1, libre");
});

it("warns before a hold ends, and says that it has ended", async () => {
  const short = await new Server({ SEATWS_HOLDS__SECONDS: "5" }).start();
  await show({ url: short.url });
  const said: string[] = [];
  const whole = { childList: true, characterData: true, subtree: true };
  new MutationObserver(() => void said.push(notice().textContent!)).observe(notice(), whole);
  fireEvent.click(seat("A1"));
  await waitFor(() => expect(said.at(-1)).toBe("Time is up: A1 is no longer yours."), LIMIT);
  expect(said.at(-2)).toMatch(/^Your hold on A1 ends in 0:0\d\.$/);
  expect(seat("A1").className).toBe("seat");
  await short.remove();
});

it("has nothing that axe objects to, with seats of all kinds and a refusal", async () => {
  const { roomId, container } = await show({ hall: gridHall(3, 4), unavailable: ["B4"] });
  const other = await visitor(server.url, roomId!);
  await other.selectSeat("C3", { name: "María" });
  for (const id of ["A1", "A2", "A3"]) fireEvent.click(seat(id));
  await waitFor(() => expect(notice().textContent).not.toBe(""), LIMIT);
  await waitFor(() => expect(document.querySelectorAll(".other-selected, .selected")).toHaveLength(3), LIMIT);
  const { violations } = await axe.run(container, UNPAINTED);
  expect(violations.map(({ id, nodes }) => [id, nodes[0]?.html])).toEqual([]);
});
