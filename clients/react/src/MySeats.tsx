import type { Seat, SeatSelectionClient } from "@seatws/client";
import { useRef } from "react";
import type { Words } from "../../seatmap/src/index.js";
import { Countdown } from "./Countdown.js";

interface Props {
  client: SeatSelectionClient;
  seats: readonly Seat[];
  words: Words;
  onRelease: (seatId: string) => void;
}

/** One's own seats, each with its countdown and a button to give it back. */
export function MySeats({ client, seats, words, onRelease }: Props) {
  const heading = useRef<HTMLHeadingElement>(null);
  const release = (seatId: string) => {
    heading.current?.focus(); // the button goes away with its seat, and focus would be lost
    onRelease(seatId);
  };
  return (
    <div className="selected-seats">
      <h3 ref={heading} tabIndex={-1}>
        {words.mySeats}
      </h3>
      {seats.length === 0 && <p>{words.noSeats}</p>}
      <ul>
        {seats.map((seat) => (
          <li key={seat.seat_id} className={seat.pending ? "pending" : undefined}>
            <span>{seat.seat_id}</span>
            <Countdown client={client} seat={seat} />
            <button type="button" aria-label={words.release(seat.seat_id)} onClick={() => release(seat.seat_id)}>
              ×
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
