/** How a seat looks: its classes (the guide's) and what can be done with it. */
import type { Room, Seat } from "@seatws/client";

const nobody = Object.freeze({});

/** One seat of a room, free ones too. */
export function seatOf(room: Room | null, seatId: string): Seat {
  return (
    room?.seats.get(seatId) ??
    { seat_id: seatId, state: "free", pending: false, client_id: null, user_info: nobody, expires_at: null }
  );
}

export interface SeatLook {
  /** Whether seats can be clicked now: the room is live. */
  open: boolean;
  /** Sold or blocked, says the page: not for selection at all. */
  unavailable: boolean;
  /** Just refused. */
  refused: boolean;
}

/** `seat` and at most one of `selected`, `other-selected`, `unavailable`; then `pending`, `refused`. */
export function seatClass(seat: Seat, { open, unavailable, refused }: SeatLook): string {
  const classes = ["seat"];
  if (seat.state === "mine") classes.push("selected");
  else if (unavailable) classes.push("unavailable");
  else if (seat.state === "other") classes.push("other-selected");
  else if (!open) classes.push("unavailable");
  if (seat.pending) classes.push("pending");
  if (refused) classes.push("refused");
  return classes.join(" ");
}

/** Whether a click does something. */
export function canToggle(seat: Seat, { open, unavailable }: SeatLook): boolean {
  return open && (seat.state === "mine" || (seat.state === "free" && !unavailable));
}

/** The holder's name where it is told and the server shares it. Made by visitors: never HTML. */
export function holderName(seat: Seat): string | null {
  const { name } = seat.user_info;
  return typeof name === "string" && name.trim() ? name.trim() : null;
}
