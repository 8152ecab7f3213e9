import { cleanup } from "@testing-library/react";
import { afterEach, beforeEach, expect, vi } from "vitest";

/** A test that makes React (or the client) complain has failed. */
const complaints = vi.spyOn(console, "error");

beforeEach(() => void complaints.mockClear());
afterEach(() => {
  if (typeof document !== "undefined") cleanup();
  expect(complaints.mock.calls).toEqual([]);
});
