import { noticeText } from "../../seatmap/src/index.js";
import type { Notice, Words } from "../../seatmap/src/index.js";

interface Props {
  notice: Notice | null;
  words: Words;
  onDismiss: () => void;
}

/** What went wrong or will soon. The live region is always there, or screen readers would miss the first text. */
export function NoticeLine({ notice, words, onDismiss }: Props) {
  return (
    <div className={`seat-notice${notice ? ` ${notice.kind}` : ""}`}>
      <p aria-live="assertive" aria-atomic="true">
        {noticeText(notice, words)}
      </p>
      {notice && (
        <button type="button" aria-label={words.dismiss} onClick={onDismiss}>
          ×
        </button>
      )}
    </div>
  );
}
