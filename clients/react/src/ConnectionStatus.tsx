import type { Status } from "@seatws/client";
import { statusText } from "../../seatmap/src/index.js";
import type { Words } from "../../seatmap/src/index.js";

/** The dot and its words; spoken when it changes. */
export function ConnectionStatus({ status, words }: { status: Status; words: Words }) {
  return (
    <div className="connection-status" role="status">
      <span className={`status-indicator status-${status.state}`} aria-hidden="true" />
      {statusText(status, words)}
    </div>
  );
}
