import { useSyncExternalStore } from "react";
import { browserLanguage } from "../../seatmap/src/index.js";
import type { Language } from "../../seatmap/src/index.js";

const never = () => () => {};

/** The browser's language. A server knows none: it renders English, and the browser corrects that. */
export function useLanguage(): Language {
  return useSyncExternalStore(never, browserLanguage, () => "en");
}
