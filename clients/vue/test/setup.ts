import { enableAutoUnmount } from "@vue/test-utils";
import { afterEach, beforeEach, expect, vi } from "vitest";

/** A test that makes Vue (or the client) complain has failed. */
const complaints = [vi.spyOn(console, "error"), vi.spyOn(console, "warn")];

enableAutoUnmount(afterEach);
beforeEach(() => complaints.forEach((each) => each.mockClear()));
afterEach(() => expect(complaints.flatMap((each) => each.mock.calls)).toEqual([]));
