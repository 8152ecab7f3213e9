import type { SessionOptions } from "../../seatmap/src/index.js";
import { SeatMapView } from "./SeatMapView.js";
import type { SeatMapViewProps } from "./SeatMapView.js";
import { useSeatSelection } from "./useSeatSelection.js";

export interface SeatMapProps extends Omit<SeatMapViewProps, "selection">, SessionOptions {
  /** The showing. */
  roomId: string | null | undefined;
}

/** A live seat map: connection state, hall, notices and one's own seats with their countdowns. */
export function SeatMap({ roomId, hall, unavailable, language, words, onSelectionChange, ...options }: SeatMapProps) {
  const selection = useSeatSelection(roomId, options);
  return <SeatMapView {...{ selection, hall, unavailable, language, words, onSelectionChange }} />;
}
