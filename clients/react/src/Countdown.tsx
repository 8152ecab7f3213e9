import { useEffect, useReducer } from "react";
import type { Seat, SeatSelectionClient } from "@seatws/client";
import { formatRemaining } from "../../seatmap/src/index.js";

/** What is left of a hold, on the server's clock; nothing while that is not known. */
export function Countdown({ client, seat }: { client: SeatSelectionClient; seat: Seat }) {
  const [, tick] = useReducer((count: number) => count + 1, 0);
  const known = seat.expires_at !== null;
  useEffect(() => {
    if (!known) return;
    const timer = setInterval(tick, 1_000);
    return () => clearInterval(timer);
  }, [known]);
  if (!known) return null;
  return (
    <span className="seat-countdown" role="timer">
      {formatRemaining(client.remaining(seat))}
    </span>
  );
}
