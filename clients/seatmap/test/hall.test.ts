import { expect, it } from "vitest";
import { formatRemaining, gridHall, moveFocus, noticeText, widthOf, en, es } from "../src/index.js";

it("names seats by row and number, also beyond Z", () => {
  const hall = gridHall(28, 2);
  expect([hall[0], hall[25], hall[26], hall[27]]).toEqual([["A1", "A2"], ["Z1", "Z2"], ["AA1", "AA2"], ["AB1", "AB2"]]);
  expect(widthOf(hall)).toBe(2);
});

const hall = [
  ["A1", null, "A2", "A3"],
  [null, null, null],
  ["B1", "B2"],
];

it.each([
  ["A1", "ArrowRight", false, "A2"],
  ["A3", "ArrowRight", false, "A3"],
  ["A2", "ArrowLeft", false, "A1"],
  ["A3", "ArrowDown", false, "B2"],
  ["B1", "ArrowDown", false, "B1"],
  ["B2", "ArrowUp", false, "A1"],
  ["A2", "PageDown", false, "B2"],
  ["B1", "PageUp", false, "A1"],
  ["A2", "Home", false, "A1"],
  ["A1", "End", false, "A3"],
  ["B2", "Home", true, "A1"],
  ["A1", "End", true, "B2"],
  ["A1", "Enter", false, null],
  ["Z9", "ArrowUp", false, null],
] as const)("moves from %s by %s (ctrl: %s) to %s", (from, key, ctrl, to) => {
  expect(moveFocus(hall, from, key, ctrl)).toBe(to);
});

it.each([
  [299_600, "5:00"],
  [61_000, "1:01"],
  [59_400, "0:59"],
  [0, "0:00"],
  [null, "0:00"],
])("writes %s ms as %s", (ms, text) => {
  expect(formatRemaining(ms)).toBe(text);
});

it("has the same words in both languages, and one for every code", () => {
  expect(Object.keys(es)).toEqual(Object.keys(en));
  expect(Object.keys(es.refused)).toEqual(Object.keys(en.refused));
  const error = Object.assign(new Error("no"), { code: "brand_new", retryable: false }) as never;
  expect(noticeText({ kind: "refused", error, seatIds: ["A1", "A2"] }, en)).toBe("A1, A2 could not be changed.");
});
