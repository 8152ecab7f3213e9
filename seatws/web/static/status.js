/** The connection's state at the top, and the line that says what happened. */

import { nameStatus } from "./reasons.js";
import { t } from "./words.js";

const $ = (id) => document.getElementById(id);

/** Say it on the page and to screen readers. @param {"info" | "good" | "error"} kind */
export function say(text, kind = "info") {
  $("message").textContent = text;
  $("message").dataset.kind = kind;
}

/**
 * @param {import("./seat-selection-client.js").Status} status
 * @param {boolean} live whether what the hall shows is; dimmed otherwise
 */
export function showStatus(status, live) {
  const { state, transport } = status;
  $("status").dataset.state = state;
  $("status").dataset.transport = transport ?? "";
  $("status-dot").className = `status-indicator status-${state}`;
  const text = nameStatus(status);
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
  $("hall").classList.toggle("stale", !live);
  $("connect-now").hidden = state === "connected";
  $("connect-now").textContent = t(state === "connecting" ? "status.now" : "status.connect");
}
