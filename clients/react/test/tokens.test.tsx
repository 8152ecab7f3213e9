import { act, renderHook, waitFor } from "@testing-library/react";
import { afterAll, beforeAll, expect, it } from "vitest";
import { useSeatSelection } from "../src/index.js";
import type { SessionOptions } from "../src/index.js";
import { Server, token, unique } from "../../js/test/server.js";

let server: Server;
beforeAll(async () => void (server = await new Server({}, { signIn: true } as object).start()));
afterAll(() => server.remove());

const LIMIT = { timeout: 30_000 }; // for a hang, never for timing
const hook = (options: SessionOptions) =>
  renderHook((props: SessionOptions) => useSeatSelection("r1", { url: server.url, ...props }), { initialProps: options });

it("signs in with a function that is written in place, and asks it once", async () => {
  const clientId = unique("me");
  let asked = 0;
  const inPlace = () => ({ clientId, token: async () => (asked++, token(clientId)) });
  const { result, rerender } = hook(inPlace());
  rerender(inPlace());
  rerender(inPlace());
  await waitFor(() => expect(result.current.room?.joined).toBe(true), LIMIT);
  rerender(inPlace());
  await act(() => result.current.selectSeat("A1"));
  expect(asked).toBe(1);
});

it("says that it was sent away, and comes back with another token", async () => {
  const clientId = unique("me");
  const { result, rerender } = hook({ clientId, token: "no.good.token" });
  await waitFor(() => expect(result.current.status.state).toBe("disconnected"), LIMIT);
  expect(result.current.notice).toMatchObject({ kind: "failed", error: { code: "closed", close_code: 4401 } });
  rerender({ clientId, token: token(clientId) });
  await waitFor(() => expect(result.current.room?.joined).toBe(true), LIMIT);
  expect(result.current.notice).toBeNull();
});

it("connects anew for another visitor", async () => {
  const [ana, bob] = [unique("ana"), unique("bob")];
  const { result, rerender } = hook({ clientId: ana, token: token(ana) });
  await waitFor(() => expect(result.current.room?.joined).toBe(true), LIMIT);
  rerender({ clientId: bob, token: token(bob) });
  await waitFor(() => expect(result.current.room?.joined).toBe(true), LIMIT);
  expect(result.current.client.clientId).toBe(bob);
});
