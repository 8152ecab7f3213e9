/** "4:59" for 299 000 ms, to the nearest second: rounded up, a fresh hold of five minutes would read 5:01. */
export function formatRemaining(ms: number | null): string {
  const seconds = Math.max(0, Math.round((ms ?? 0) / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
