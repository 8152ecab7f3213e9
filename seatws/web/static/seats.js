/**
 * The seats on screen: an ARIA grid with one tab stop, painted from what the client says of a seat.
 *
 * Class names are the guide's. Styles are set through the CSSOM, which a Content-Security-Policy
 * without 'unsafe-inline' allows; what a visitor wrote goes in as text.
 */

import { HALL, hallSeat, seatByKey } from "./hall.js";
import { t } from "./words.js";

const REFUSED_MS = 6_000;

const element = (tag, className, text = "") => {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
};

const put = (made, { x, y, turn }) => {
  made.style.setProperty("--x", `${x}%`);
  made.style.setProperty("--y", `${y}%`);
  made.style.setProperty("--turn", `${turn}deg`);
  return made;
};

/** A name fit to show: what its visitor typed, on one line; null if none is shared. */
export function sharedName({ user_info: info }) {
  const { name } = info;
  if (typeof name !== "string") return null;
  return [...name.replace(/[\p{Cc}\p{Cf}]+/gu, " ").trim()].slice(0, 80).join("") || null;
}

/** What a seat is to the visitor, in words. */
export function describe(seat) {
  const { row, number } = hallSeat(seat.seat_id);
  const name = sharedName(seat);
  const key = seat.pending ? "pending" : seat.state === "other" && name ? "otherNamed" : seat.state;
  return t(`seat.${key}`, { row, number, name });
}

export class SeatsView {
  /**
   * @param {HTMLElement} grid gets the rows
   * @param {{onChoose: (id: string) => void, onLook: (id: ?string) => void}} handlers
   *   `onLook`: a seat is pointed at or focused; null: no more
   */
  constructor(grid, { onChoose, onLook }) {
    this.grid = grid;
    this.buttons = new Map();
    this.refusals = new Map();
    grid.style.setProperty("--hall-width", HALL.width);
    grid.style.setProperty("--hall-height", HALL.height);
    grid.append(...HALL.rows.map((row) => this.#row(row)));
    this.#rove("A1");

    const seatOf = (event) => event.target.closest?.(".seat")?.dataset.seat ?? null;
    grid.addEventListener("click", (event) => {
      const id = seatOf(event);
      if (id) onChoose(id);
    });
    grid.addEventListener("keydown", (event) => {
      const id = seatOf(event);
      const next = id && !event.altKey && !event.metaKey && seatByKey(id, event);
      if (!next) return;
      event.preventDefault(); // or the page would scroll
      this.buttons.get(next).focus();
    });
    grid.addEventListener("focusin", (event) => {
      const id = seatOf(event);
      if (id) this.#rove(id);
      onLook(id);
    });
    grid.addEventListener("focusout", () => onLook(null));
    grid.addEventListener("pointerover", (event) => onLook(seatOf(event)));
    grid.addEventListener("pointerleave", () => onLook(null));
  }

  /**
   * Show a seat as it is now.
   *
   * @param {import("./seat-selection-client.js").Seat} seat
   * @param {boolean} live whether the room is; otherwise what it last looked like is shown, and nothing can be had
   */
  paint(seat, live) {
    const button = this.buttons.get(seat.seat_id);
    if (!button) return; // some other hall's
    const { state, pending } = seat;
    const label = describe(seat);
    button.classList.toggle("selected", state === "mine");
    button.classList.toggle("other-selected", state === "other");
    button.classList.toggle("pending", pending);
    button.classList.toggle("unavailable", !live);
    button.dataset.state = pending ? "pending" : state;
    if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
    button.setAttribute("aria-selected", String(state === "mine"));
    button.setAttribute("aria-disabled", String(!live || state === "other"));
    if (state === "mine" && !pending) this.#unrefuse(seat.seat_id);
  }

  /** Show how long a seat is still one's own, as "4:59" ("" if it is not), and whether that is little. */
  tick(id, time, urgent) {
    const button = this.buttons.get(id);
    if (!button) return;
    button.classList.toggle("urgent", urgent);
    const shown = button.lastElementChild;
    if (shown.textContent !== time) shown.textContent = time;
  }

  /** Mark a seat as just refused, for a while. */
  refuse(id) {
    const button = this.buttons.get(id);
    if (!button) return;
    this.#unrefuse(id);
    button.classList.add("refused");
    this.refusals.set(id, setTimeout(() => this.#unrefuse(id), REFUSED_MS));
  }

  #unrefuse(id) {
    clearTimeout(this.refusals.get(id));
    this.refusals.delete(id);
    this.buttons.get(id).classList.remove("refused");
  }

  /** The one seat that Tab leads to. */
  #rove(id) {
    if (this.stop) this.stop.tabIndex = -1;
    this.stop = this.buttons.get(id);
    this.stop.tabIndex = 0;
  }

  #row({ name, seats, aisles }) {
    const row = element("div", "seat-row");
    row.setAttribute("role", "row");
    const [first, ...others] = aisles.map((aisle) => put(element("span", "row-name", name), aisle));
    first.setAttribute("role", "rowheader");
    first.setAttribute("aria-label", t("row", { row: name }));
    for (const other of others) other.setAttribute("aria-hidden", "true");
    row.append(first, ...seats.map((seat) => this.#seat(seat)), ...others);
    return row;
  }

  #seat(seat) {
    const button = put(element("button", "seat unavailable"), seat);
    button.type = "button";
    button.id = `seat_${seat.id}`;
    button.tabIndex = -1;
    button.dataset.seat = seat.id;
    button.setAttribute("role", "gridcell");
    button.append(element("span", "seat-number", String(seat.number)), element("span", "seat-time"));
    this.buttons.set(seat.id, button);
    return button;
  }
}
