/** Who a visitor is, where the page doesn't say. */

const KEY = "seatws.client_id";
let kept: string | undefined;

function fresh(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `user_${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/**
 * An id that survives a reload of the page, so that one's seats are still one's own after it.
 *
 * It is kept in this tab's sessionStorage. Where that is not to be had, it lives as long as the page;
 * on a server, where no visitor is, each call makes a new one.
 */
export function rememberedClientId(): string {
  if (typeof window === "undefined") return fresh();
  try {
    kept = sessionStorage.getItem(KEY) ?? kept ?? fresh();
    sessionStorage.setItem(KEY, kept);
  } catch {
    kept ??= fresh();
  }
  return kept;
}
