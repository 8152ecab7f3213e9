/** What the map says, in Spanish and English. */
import type { Seat, Status } from "@seatws/client";
import { formatRemaining } from "./countdown.js";
import { holderName } from "./seats.js";
import type { Notice } from "./session.js";

export interface Words {
  readonly hall: string;
  readonly screen: string;
  readonly row: (row: string) => string;
  readonly free: string;
  readonly mine: string;
  readonly other: string;
  readonly takenBy: (name: string) => string;
  readonly unavailable: string;
  readonly asking: string;
  readonly mySeats: string;
  readonly noSeats: string;
  readonly release: (seatId: string) => string;
  readonly dismiss: string;
  readonly connected: string;
  readonly polling: string;
  readonly connecting: string;
  readonly disconnected: string;
  readonly expiring: (seats: string, time: string) => string;
  readonly expired: (seats: string) => string;
  /** By error code; `""` for every other. */
  readonly refused: Readonly<Record<string, string>>;
  readonly failed: Readonly<Record<string, string>>;
}

export const es: Words = {
  hall: "Plano de la sala",
  screen: "Pantalla",
  row: (row) => `Fila ${row}`,
  free: "libre",
  mine: "tuyo",
  other: "ocupado",
  takenBy: (name) => `ocupado por ${name}`,
  unavailable: "no disponible",
  asking: "esperando respuesta",
  mySeats: "Mis selecciones",
  noSeats: "Aún no has elegido asiento.",
  release: (seatId) => `Liberar ${seatId}`,
  dismiss: "Cerrar aviso",
  connected: "Conectado",
  polling: "Conectado (sin WebSocket)",
  connecting: "Conectando…",
  disconnected: "Desconectado",
  expiring: (seats, time) => `Tu reserva de ${seats} termina en ${time}.`,
  expired: (seats) => `Se acabó el tiempo: ${seats} ya no es tuyo.`,
  refused: {
    "": "No se pudo cambiar {seats}.",
    seat_taken: "Otra persona ha sido más rápida: {seats} ya está ocupado.",
    limit_reached: "No puedes elegir más asientos en esta función.",
    not_holder: "{seats} ya no era tuyo.",
    forbidden: "No tienes permiso para elegir asientos en esta sala.",
    unauthenticated: "Tu sesión ha terminado: vuelve a entrar.",
    rate_limited: "Demasiado rápido: espera un momento y prueba otra vez.",
    store_unavailable: "El servidor tiene dificultades: prueba {seats} otra vez.",
    timeout: "El servidor no ha respondido a tiempo: prueba {seats} otra vez.",
  },
  failed: {
    "": "No hay conexión con esta sala.",
    forbidden: "No tienes permiso para entrar en esta sala.",
    unauthenticated: "Tu sesión ha terminado: vuelve a entrar.",
    limit_reached: "Tienes demasiadas salas abiertas.",
  },
};

export const en: Words = {
  hall: "Seat map",
  screen: "Screen",
  row: (row) => `Row ${row}`,
  free: "free",
  mine: "yours",
  other: "taken",
  takenBy: (name) => `taken by ${name}`,
  unavailable: "not available",
  asking: "waiting for the answer",
  mySeats: "My seats",
  noSeats: "You have not chosen a seat yet.",
  release: (seatId) => `Release ${seatId}`,
  dismiss: "Close notice",
  connected: "Connected",
  polling: "Connected (without WebSocket)",
  connecting: "Connecting…",
  disconnected: "Disconnected",
  expiring: (seats, time) => `Your hold on ${seats} ends in ${time}.`,
  expired: (seats) => `Time is up: ${seats} is no longer yours.`,
  refused: {
    "": "{seats} could not be changed.",
    seat_taken: "Somebody was faster: {seats} is taken.",
    limit_reached: "You can't choose more seats in this showing.",
    not_holder: "{seats} was not yours any more.",
    forbidden: "You are not allowed to choose seats in this room.",
    unauthenticated: "Your session has ended: please sign in again.",
    rate_limited: "Too fast: wait a moment and try again.",
    store_unavailable: "The server is in trouble: please try {seats} again.",
    timeout: "The server did not answer in time: please try {seats} again.",
  },
  failed: {
    "": "There is no connection to this room.",
    forbidden: "You are not allowed to enter this room.",
    unauthenticated: "Your session has ended: please sign in again.",
    limit_reached: "You have too many rooms open.",
  },
};

export type Language = "es" | "en";

export function wordsFor(language: Language, own?: Partial<Words>): Words {
  return { ...(language === "es" ? es : en), ...own };
}

/** Spanish where the page or, failing that, the browser says so; English otherwise. Needs a browser. */
export function browserLanguage(): Language {
  const said = document.documentElement.lang || navigator.language || "";
  return /^es\b/i.test(said) ? "es" : "en";
}

/** A seat's name for a screen reader; `aria-pressed` tells on top whether it is one's own. */
export function seatLabel(seat: Seat, unavailable: boolean, words: Words): string {
  const name = seat.state === "other" ? holderName(seat) : null;
  let state = words.free;
  if (seat.state === "mine") state = words.mine;
  else if (unavailable) state = words.unavailable;
  else if (seat.state === "other") state = name ? words.takenBy(name) : words.other;
  return [seat.seat_id, state, ...(seat.pending ? [words.asking] : [])].join(", ");
}

export function statusText(status: Status, words: Words): string {
  if (status.transport === "polling") return words.polling;
  return words[status.state];
}

export function noticeText(notice: Notice | null, words: Words): string {
  if (!notice) return "";
  const seats = notice.seatIds.join(", ");
  if (notice.kind === "expired") return words.expired(seats);
  if (notice.kind === "expiring") return words.expiring(seats, formatRemaining(notice.remaining));
  const texts = notice.kind === "refused" ? words.refused : words.failed;
  return (texts[notice.error.code] ?? texts[""] ?? notice.error.message).replaceAll("{seats}", seats);
}
