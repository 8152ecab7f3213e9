export { default as SeatMap } from "./SeatMap.vue";
export { default as SeatMapView } from "./SeatMapView.vue";
export { useSeatSelection } from "./useSeatSelection.js";
export type { SeatSelection } from "./useSeatSelection.js";
export { formatRemaining, gridHall, rememberedClientId } from "../../seatmap/src/index.js";
export type { Hall, Language, Notice, SessionOptions, Words } from "../../seatmap/src/index.js";
export { SeatError, SeatSelectionClient } from "@seatws/client";
export type { Hold, Room, Seat, Status } from "@seatws/client";
