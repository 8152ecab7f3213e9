import { useCallback, useRef, useState } from "react";
import type { CSSProperties, KeyboardEvent } from "react";
import { firstSeat, moveFocus, widthOf } from "../../seatmap/src/index.js";
import type { Hall, Words } from "../../seatmap/src/index.js";
import { SeatButton } from "./SeatButton.js";
import type { SeatSelection } from "./useSeatSelection.js";

interface Props {
  selection: SeatSelection;
  hall: Hall;
  blocked: ReadonlySet<string>;
  words: Words;
}

/** The hall: one stop for the Tab key, arrows from seat to seat, Enter or Space to choose (ARIA's grid pattern). */
export function SeatGrid({ selection, hall, blocked, words }: Props) {
  const { room, notice, toggleSeat } = selection;
  const grid = useRef<HTMLDivElement>(null);
  const [focused, setFocused] = useState<string | null>(null);
  const stop = focused && hall.some((row) => row.includes(focused)) ? focused : firstSeat(hall);
  const open = room?.joined ?? false;
  const refused = notice?.kind === "refused" ? notice.seatIds : [];
  const onToggle = useCallback((seatId: string) => toggleSeat(seatId), [toggleSeat]);

  const onKeyDown = (event: KeyboardEvent) => {
    const from = (event.target as HTMLElement).dataset.seat;
    if (!from || event.altKey || event.metaKey) return;
    const to = moveFocus(hall, from, event.key, event.ctrlKey);
    if (to === null) return;
    event.preventDefault();
    for (const seat of grid.current!.querySelectorAll<HTMLElement>("[data-seat]")) {
      if (seat.dataset.seat === to) seat.focus();
    }
  };

  return (
    <div className="seat-hall">
      <div className="seat-screen" aria-hidden="true">
        {words.screen}
      </div>
      <div
        ref={grid}
        className="seat-grid"
        role="grid"
        aria-label={words.hall}
        aria-busy={!open}
        style={{ "--seat-columns": widthOf(hall) } as CSSProperties}
        onKeyDown={onKeyDown}
      >
        {hall.map((row, index) => (
          <div key={index} className="seat-row" role="row">
            {row.map((seatId, column) => (
              <div key={seatId ?? column} className="seat-cell" role="gridcell">
                {seatId !== null && (
                  <SeatButton
                    seatId={seatId}
                    seat={room?.seats.get(seatId)}
                    open={open}
                    unavailable={blocked.has(seatId)}
                    refused={refused.includes(seatId)}
                    isStop={seatId === stop}
                    words={words}
                    onToggle={onToggle}
                    onFocus={setFocused}
                  />
                )}
              </div>
            ))}
          </div>
        ))}
      </div>
    </div>
  );
}
