/** One's own seats as a list: what is left of each, and a button to give it back. */

import { hallSeat } from "./hall.js";
import { formatRemaining, t } from "./words.js";

const LONGEST = "seatws.longest-hold-ms";

export class Tickets {
  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} heading where the focus goes when the last ticket went with it
   * @param {(id: string) => void} onRelease
   */
  constructor(list, heading, onRelease) {
    this.list = list;
    this.heading = heading;
    this.onRelease = onRelease;
    this.tickets = new Map();
    // The bar is of the longest time that was ever left: how long holds are, the server tells nobody.
    this.longest = Number(sessionStorage.getItem(LONGEST)) || 1;
  }

  /** Show these seats, and keep the focus where it can be kept. */
  paint(seats) {
    const ids = new Set(seats.map((seat) => seat.seat_id));
    for (const [id, ticket] of this.tickets) if (!ids.has(id)) this.#remove(id, ticket);
    for (const { seat_id: seatId, pending } of seats) {
      if (!this.tickets.has(seatId)) this.#add(seatId);
      this.tickets.get(seatId).classList.toggle("pending", pending);
    }
  }

  /** Show what is left of one: ms, or null while that is not known. */
  tick(id, left) {
    const ticket = this.tickets.get(id);
    if (!ticket) return;
    const [time, bar] = [ticket.querySelector(".ticket-time"), ticket.querySelector("progress")];
    time.textContent = left === null ? "…" : formatRemaining(left);
    if (left > this.longest) {
      this.longest = left;
      sessionStorage.setItem(LONGEST, String(left));
    }
    bar.max = this.longest;
    bar.value = left ?? this.longest;
    ticket.classList.toggle("urgent", left !== null && left <= 60_000);
  }

  #add(id) {
    const ticket = document.createElement("li");
    ticket.className = "ticket";
    ticket.dataset.seat = id;
    const seat = document.createElement("b");
    seat.textContent = id;
    const where = document.createElement("span");
    where.className = "ticket-where";
    where.textContent = hallSeat(id) ? t("row", hallSeat(id)) : t("mine.elsewhere");
    const time = document.createElement("span");
    time.className = "ticket-time";
    const bar = document.createElement("progress");
    bar.setAttribute("aria-hidden", "true"); // says what the time beside it says
    const release = document.createElement("button");
    release.type = "button";
    release.textContent = "✕";
    release.setAttribute("aria-label", t("mine.release", { seat: id }));
    release.addEventListener("click", () => this.onRelease(id));
    ticket.append(seat, where, time, release, bar);
    this.tickets.set(id, ticket);
    this.list.append(ticket);
  }

  #remove(id, ticket) {
    this.tickets.delete(id);
    const hadFocus = ticket.contains(document.activeElement);
    const next = ticket.nextElementSibling ?? ticket.previousElementSibling;
    ticket.remove();
    if (hadFocus) (next?.querySelector("button") ?? this.heading).focus();
  }
}
