import { memo } from "react";
import type { Seat } from "@seatws/client";
import { canToggle, holderName, seatClass, seatLabel, seatOf } from "../../seatmap/src/index.js";
import type { Words } from "../../seatmap/src/index.js";

interface Props {
  seatId: string;
  /** Undefined: free. */
  seat: Seat | undefined;
  open: boolean;
  unavailable: boolean;
  refused: boolean;
  /** Whether the Tab key stops here. */
  isStop: boolean;
  words: Words;
  onToggle: (seatId: string) => void;
  onFocus: (seatId: string) => void;
}

/** One seat. It is not `disabled` when it can't be chosen: a screen reader would skip it, and not tell why. */
export const SeatButton = memo(function SeatButton(props: Props) {
  const { seatId, open, unavailable, refused, isStop, words, onToggle, onFocus } = props;
  const seat = props.seat ?? seatOf(null, seatId);
  const look = { open, unavailable, refused };
  const enabled = canToggle(seat, look);
  return (
    <button
      type="button"
      className={seatClass(seat, look)}
      data-seat={seatId}
      tabIndex={isStop ? 0 : -1}
      aria-label={seatLabel(seat, unavailable, words)}
      aria-pressed={seat.state === "mine"}
      aria-disabled={!enabled}
      title={(seat.state === "other" && holderName(seat)) || undefined}
      onClick={() => enabled && onToggle(seatId)}
      onFocus={() => onFocus(seatId)}
    >
      {seatId}
    </button>
  );
});
