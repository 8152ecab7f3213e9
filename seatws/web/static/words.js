/** The page's words in the visitor's language. */

import { EN } from "./words-en.js";
import { ES } from "./words-es.js";

const WORDS = { es: ES, en: EN };

/** The first language of the visitor's list that we speak; English for everyone else. */
export function pickLanguage(languages) {
  const spoken = languages.map((each) => each.toLowerCase().split("-")[0]);
  return spoken.find((each) => Object.hasOwn(WORDS, each)) ?? "en";
}

export const language = pickLanguage(navigator.languages ?? []);

/** Whether there are words for it. Codes come from the server, hence hasOwn. */
export const hasWords = (key) => Object.hasOwn(EN, key);

/** `key` in words, its {placeholders} filled from `values`. */
export function t(key, values = {}) {
  // One pass with a function: a name such as "{seat}" or "$&" goes in as it is.
  return WORDS[language][key].replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** Put the words into what the page has marked with data-i18n (its text) and data-i18n-label (its name). */
export function translatePage() {
  document.documentElement.lang = language;
  for (const each of document.querySelectorAll("[data-i18n]")) each.textContent = t(each.dataset.i18n);
  for (const each of document.querySelectorAll("[data-i18n-label]")) {
    each.setAttribute("aria-label", t(each.dataset.i18nLabel));
  }
}

/** "4:59" for 299 000 ms. To the nearest second: rounded up, a fresh hold of five minutes would read 5:01. */
export function formatRemaining(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
