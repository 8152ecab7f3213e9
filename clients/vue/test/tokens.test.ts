import { mount } from "@vue/test-utils";
import { defineComponent, nextTick, reactive, toRaw } from "vue";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { useSeatSelection } from "../src/index.js";
import type { SeatSelection, SessionOptions } from "../src/index.js";
import { Server, token, unique } from "../../js/test/server.js";

let server: Server;
beforeAll(async () => void (server = await new Server({}, { signIn: true } as object).start()));
afterAll(() => server.remove());

const LIMIT = { timeout: 30_000 }; // for a hang, never for timing

function use(options: SessionOptions): SeatSelection {
  let selection!: SeatSelection;
  mount(defineComponent(() => {
    selection = useSeatSelection("r1", () => ({ url: server.url, ...options }));
    return () => null;
  }));
  return selection;
}
const joined = ({ room }: SeatSelection) => vi.waitFor(() => expect(room.value?.joined).toBe(true), LIMIT);

it("signs in with a function that is written in place, and asks it once", async () => {
  const clientId = unique("me");
  const asked: number[] = [];
  const inPlace = () => async () => (asked.push(1), token(clientId));
  const options = reactive<SessionOptions>({ clientId, token: inPlace() });
  const mine = use(options);
  options.token = inPlace();
  await joined(mine);
  options.token = inPlace();
  await nextTick();
  await mine.selectSeat("A1");
  expect(asked).toHaveLength(1);
});

it("says that it was sent away, and comes back with another token", async () => {
  const clientId = unique("me");
  const options = reactive<SessionOptions>({ clientId, token: "no.good.token" });
  const mine = use(options);
  await vi.waitFor(() => expect(mine.notice.value).toMatchObject({ kind: "failed", error: { code: "closed" } }), LIMIT);
  expect(mine.status.value.state).toBe("disconnected");
  options.token = token(clientId);
  await joined(mine);
  expect(mine.notice.value).toBeNull();
});

it("connects anew for another visitor, once both id and token are there", async () => {
  const [ana, bob] = [unique("ana"), unique("bob")];
  const options = reactive<SessionOptions>({ clientId: ana, token: token(ana) });
  const mine = use(options);
  await joined(mine);
  options.clientId = bob;
  options.token = token(bob);
  await vi.waitFor(() => expect(mine.client.value.clientId).toBe(bob), LIMIT);
  await joined(mine);
  expect(toRaw(mine.notice.value)).toBeNull();
});
