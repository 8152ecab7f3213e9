import { useEffect, useMemo } from "react";
import type { Seat } from "@seatws/client";
import { gridHall, wordsFor } from "../../seatmap/src/index.js";
import type { Hall, Language, Words } from "../../seatmap/src/index.js";
import { ConnectionStatus } from "./ConnectionStatus.js";
import { MySeats } from "./MySeats.js";
import { NoticeLine } from "./NoticeLine.js";
import { SeatGrid } from "./SeatGrid.js";
import { useLanguage } from "./useLanguage.js";
import type { SeatSelection } from "./useSeatSelection.js";

export interface SeatMapViewProps {
  /** What `useSeatSelection` returned. */
  selection: SeatSelection;
  /** Default: the guide's, A1 to J15. */
  hall?: Hall;
  /** Seats that are not for selection: sold, broken, blocked. */
  unavailable?: Iterable<string>;
  /** Default: the page's `lang`, failing that the browser's. */
  language?: Language;
  /** Words of your own, instead of the built-in ones. */
  words?: Partial<Words>;
  /** Told of one's own seats whenever they change, those that are still asked for included. */
  onSelectionChange?: (mine: readonly Seat[]) => void;
}

const GUIDE_HALL = gridHall();

/** The seat map for a `useSeatSelection` of your own. */
export function SeatMapView({ selection, hall = GUIDE_HALL, unavailable, language, words: own, onSelectionChange }: SeatMapViewProps) {
  const found = useLanguage();
  const words = useMemo(() => wordsFor(language ?? found, own), [language, found, own]);
  const blocked = useMemo(() => new Set(unavailable), [unavailable]);
  const { client, mine, status, notice } = selection;
  useEffect(() => {
    onSelectionChange?.(mine);
  }, [mine]); // not for another function: it is often written in place

  return (
    <div className="seat-selection" lang={language ?? found}>
      <ConnectionStatus status={status} words={words} />
      <SeatGrid selection={selection} hall={hall} blocked={blocked} words={words} />
      <NoticeLine notice={notice} words={words} onDismiss={selection.dismissNotice} />
      <MySeats client={client} seats={mine} words={words} onRelease={selection.toggleSeat} />
    </div>
  );
}
