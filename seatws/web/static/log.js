/** The last messages of the wire, for developers. */

const LINES = 200;
/** A snapshot of a large room is a frame of megabytes; the log shows how it begins. */
const CHARACTERS = 2_000;
const ARROWS = { sent: "↑", received: "↓", note: "·" };

export class MessageLog {
  paused = false;

  /** @param {HTMLElement} list scrolls */
  constructor(list) {
    this.list = list;
  }

  /**
   * Add a line at the end, and follow it if the end was in sight.
   *
   * @param {"sent" | "received" | "note"} kind
   * @param {object | string} what a frame, or a text
   */
  add(kind, what) {
    if (this.paused) return;
    const { list } = this;
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const text = typeof what === "string" ? what : JSON.stringify(what);
    const line = document.createElement("li");
    line.className = what.type === "error" || what.type === "goodbye" ? `${kind} bad` : kind;
    const time = document.createElement("time");
    time.textContent = new Date().toISOString().slice(11, 23);
    const arrow = document.createElement("span");
    arrow.className = "arrow";
    arrow.textContent = ARROWS[kind];
    const frame = document.createElement("span");
    frame.textContent = text.length > CHARACTERS ? `${text.slice(0, CHARACTERS)}…` : text;
    line.append(time, arrow, frame);
    list.append(line);
    while (list.childElementCount > LINES) list.firstElementChild.remove();
    if (follows) list.scrollTop = list.scrollHeight;
  }

  clear() {
    this.list.replaceChildren();
  }
}
