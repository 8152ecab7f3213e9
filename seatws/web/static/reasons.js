/** What happened, in the visitor's words: refusals, and why a connection ended. */

import { formatRemaining, hasWords, t } from "./words.js";

/**
 * Why something was refused or failed.
 *
 * @param {import("./seat-selection-client.js").SeatError} error
 * @param {import("./seat-selection-client.js").SeatSelectionClient} client for the time that is left
 */
export function explainError(error, client) {
  const { code, request, conflicts = [] } = error;
  const values = {
    seat: error.seat_id ?? conflicts.map((each) => each.seat_id).join(", "),
    room: error.room_id,
    text: error.message,
  };
  if (code === "seat_taken" && request === "select_seats") return t("error.seat_takenMany", values);
  const left = code === "seat_taken" && conflicts[0] ? client.remaining(conflicts[0]) : null;
  if (left) return t("error.seat_takenUntil", { ...values, time: formatRemaining(left) });
  if (request === "join_room" && code === "limit_reached") return t("error.limit_reachedRooms");
  if (request === "join_room" && code === "forbidden") return t("error.forbiddenRoom", values);
  return t(hasWords(`error.${code}`) ? `error.${code}` : "error.other", values);
}

/** Why the connection is gone: one that comes back by itself (`connecting`), or one that does not. */
export function explainEnd({ state, code }) {
  if (state === "connecting") return t(hasWords(`lost.${code}`) ? `lost.${code}` : "lost.other");
  if (code === null) return t("closed.0");
  return t(hasWords(`closed.${code}`) ? `closed.${code}` : "closed.other");
}

/** The connection's state in a word or two. */
export function nameStatus({ state, transport, retryAt }) {
  if (state === "connected") return t(`status.${transport}`);
  if (state !== "connecting" || retryAt === null) return t(`status.${state}`);
  const seconds = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
  return t("status.waiting", { seconds });
}
