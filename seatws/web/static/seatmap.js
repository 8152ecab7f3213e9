/**
 * The page at "/": one room's seats, live.
 *
 * From top to bottom, each part knowing only those above it:
 *
 *   rules       what a message means for the map, clocks, backoff    pure, exported, tested in Node
 *   words       Spanish and English
 *   Connection  one WebSocket at a time, kept alive, opened again
 *   views       the hall, one's own seats, the log: DOM out, clicks in
 *   App         puts them together
 *
 * The map shows what the server said and nothing else: a click only asks, and the seat looks
 * "pending" until the answer (PROTOCOL.md section 3). Server text reaches the page as textContent
 * or an attribute, never as HTML: any visitor chooses a name and a client id, and everyone sees them.
 */

/* ------------------------------------------------------------------ rules */

export const ROWS = ["A", "B", "C", "D", "E"];
export const SEATS_PER_ROW = 10;

export const BACKOFF_BASE_MS = 500;
export const BACKOFF_CAP_MS = 15_000;
/** No server may send us away for longer; also, setTimeout fires at once above 2^31 ms. */
export const RETRY_AFTER_CAP_MS = 600_000;

/** Below the 30–60 s after which proxies commonly drop a silent connection. */
export const PING_EVERY_MS = 25_000;
export const PONG_WITHIN_MS = 10_000;
/** A packet filter that swallows the handshake would leave us "connecting" for minutes. */
export const OPEN_WITHIN_MS = 15_000;
/** The server answers within 3 s at the most (PROTOCOL.md section 4); the rest is for the network. */
export const ANSWER_WITHIN_MS = 8_000;
/** A connection that lived this long was a good one: its loss starts the backoff anew. */
export const STABLE_AFTER_MS = 5_000;

export const LOG_LINES = 200;
/** A snapshot of a large room is a frame of megabytes; the log shows how it begins. */
export const LOG_LINE_CHARS = 2_000;

/** Close codes after which the same attempt would end the same way (PROTOCOL.md section 5). */
const FINAL_CODES = new Set([4400, 4401, 4403]);

/** PROTOCOL.md section 1: a room id; a client id too, but see `isClientId`. */
export function isId(text) {
  return /^[A-Za-z0-9._:@-]{1,64}$/.test(text);
}

/** As `isId`, but for "." and "..": in a URL those are path steps, and /ws/.. never reaches /ws/. */
export function isClientId(text) {
  return isId(text) && text !== "." && text !== "..";
}

/** What a room looks like before the server has told anything about it. */
export function emptyRoom(id = null) {
  return { id, joined: false, holds: new Map() };
}

/** The room as it stays on screen while the connection is down: last known, nobody to ask. */
export function staleRoom(room) {
  return room.joined ? { ...room, joined: false } : room;
}

/**
 * The room after one server frame; the same object if the frame changes nothing.
 *
 * There is no `rev` check. The server sends each viewer every change in order, or else a whole
 * `current_selections`; a second opinion here could only hide a server's fault.
 *
 * @param {{id: ?string, joined: boolean, holds: Map<string, Hold>}} room is left as it is
 * @param {object} message any JSON object; unknown types and other rooms' messages change nothing
 */
export function reduceRoom(room, message) {
  switch (message.type) {
    case "room_joined":
      // The old map stays until the snapshot that always follows, or a reconnect would flicker.
      return { ...(message.room_id === room.id ? room : emptyRoom(message.room_id)), joined: true };
    case "room_left":
      return message.room_id === room.id ? emptyRoom() : room;
    case "current_selections":
      if (!concerns(room, message) || !Array.isArray(message.selections)) return room;
      return {
        ...room,
        holds: new Map(
          message.selections
            .filter((each) => typeof each?.seat_id === "string")
            .map((each) => [each.seat_id, toHold(each)]),
        ),
      };
    case "seat_selected": {
      if (!concerns(room, message) || typeof message.seat_id !== "string") return room;
      return { ...room, holds: new Map(room.holds).set(message.seat_id, toHold(message)) };
    }
    case "seat_released": {
      if (!concerns(room, message) || !room.holds.has(message.seat_id)) return room;
      const holds = new Map(room.holds);
      holds.delete(message.seat_id);
      return { ...room, holds };
    }
    default:
      return room;
  }
}

/** The guide's own current_selections has no room_id; ours always has. */
function concerns(room, message) {
  return room.id !== null && (message.room_id === undefined || message.room_id === room.id);
}

/** @typedef {{clientId: string, name: ?string, expiresAt: ?number}} Hold `expiresAt`: Unix ms, server's clock */
function toHold(selection) {
  return {
    clientId: String(selection.client_id),
    name: shortName(selection.user_info?.name),
    expiresAt: parseTime(selection.expires_at),
  };
}

/** A name fit to show: what other visitors typed, or null. Long ones would fill the screen. */
export function shortName(value) {
  if (typeof value !== "string") return null;
  const name = value.replace(/\p{Cc}+/gu, " ").trim();
  return name ? [...name].slice(0, 80).join("") : null;
}

/** How a seat is shown: "pending" while its answer is awaited, then whatever the server said. */
export function seatState(room, seatId, clientId, pending) {
  if (pending.has(seatId)) return "pending";
  const hold = room.holds.get(seatId);
  if (!hold) return "free";
  return hold.clientId === clientId ? "mine" : "other";
}

/** RFC 3339 to Unix ms; null for anything else. */
export function parseTime(text) {
  const ms = typeof text === "string" ? Date.parse(text) : NaN;
  return Number.isNaN(ms) ? null : ms;
}

/**
 * What to add to the local clock to get the server's; null if the frame tells no time.
 *
 * @param {string} serverTime as sent
 * @param {number} localNow ms at receipt, on whatever clock the result is to be used with
 * @param {number} roundTrip ms since the question; 0 if the server spoke unasked. The server read
 *   its clock about half of it ago, so an unasked time makes the offset short by the way here.
 */
export function clockOffset(serverTime, localNow, roundTrip = 0) {
  const server = parseTime(serverTime);
  return server === null ? null : server + roundTrip / 2 - localNow;
}

/** "4:59". To the nearest second: the clocks agree to some ms only, and rounded up a fresh hold would read 5:01. */
export function formatCountdown(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/**
 * Milliseconds to wait before attempt number `attempt` (0 is the first after a loss).
 *
 * Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"): a whole audience loses
 * its server in the same instant, and must not come back in one. A wait that the server named is
 * kept, with the first attempt's jitter on top: it knows better than our guess when to come.
 *
 * @param {() => number} random from 0 to below 1
 */
export function backoffMs(attempt, retryAfterMs = 0, random = Math.random) {
  if (Number.isFinite(retryAfterMs) && retryAfterMs > 0) {
    return Math.min(RETRY_AFTER_CAP_MS, retryAfterMs) + random() * BACKOFF_BASE_MS;
  }
  return random() * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** attempt);
}

/** May we come back after this close? `goodbye` is the server's last frame, if it sent one. */
export function comesBack(code, goodbye = null) {
  return !FINAL_CODES.has(code) && !FINAL_CODES.has(goodbye?.code) && goodbye?.reconnect !== false;
}

const ARROWS = new Map([["ArrowUp", [-1, 0]], ["ArrowDown", [1, 0]], ["ArrowLeft", [0, -1]], ["ArrowRight", [0, 1]]]);

/** The seat that an arrow key leads to; null at the edge and for other keys. */
export function neighbour(seatId, key) {
  const arrow = ARROWS.get(key);
  if (!arrow) return null;
  const row = ROWS[ROWS.indexOf(seatId[0]) + arrow[0]];
  const column = Number(seatId.slice(1)) + arrow[1];
  return row && column >= 1 && column <= SEATS_PER_ROW ? `${row}${column}` : null;
}

/* ------------------------------------------------------------------ words */

export const WORDS = {
  es: {
    title: "Asientos en vivo · seatws",
    heading: "Asientos en vivo",
    room: "Sala",
    screen: "Pantalla",
    legend: "Leyenda",
    "legend.free": "Libre",
    "legend.mine": "Tuyo",
    "legend.other": "De otra persona",
    "legend.pending": "Preguntando",
    mine: "Mis selecciones",
    "mine.empty": "Todavía no tienes ningún asiento.",
    name: "Tu nombre",
    "name.hint": "Acompaña a los asientos que elijas; los demás pueden verlo.",
    connection: "Conexión",
    clientId: "Identificador de cliente",
    connect: "Conectar",
    reconnect: "Reconectar",
    connectNow: "Conectar ya",
    disconnect: "Desconectar",
    roomId: "Sala (función)",
    join: "Entrar",
    leave: "Salir",
    ping: "Ping",
    latency: "Latencia",
    log: "Mensajes",
    "status.open": "Conectado",
    "status.connecting": "Conectando…",
    "status.closed": "Desconectado",
    "status.waiting": "Reconectando en {seconds} s",
    "seat.free": "Asiento {seat}, libre",
    "seat.mine": "Asiento {seat}, tuyo; pulsa para liberarlo",
    "seat.other": "Asiento {seat}, ocupado",
    "seat.otherNamed": "Asiento {seat}, ocupado por {name}",
    "seat.pending": "Asiento {seat}, esperando respuesta",
    "chip.release": "Liberar {seat}",
    "say.connected": "Conectado.",
    "say.joined": "Estás en la sala {room}. Elige un asiento.",
    "say.left": "Has salido de la sala {room}.",
    "say.leftForbidden": "Ya no tienes permiso para estar en la sala {room}.",
    "say.selected": "El asiento {seat} es tuyo.",
    "say.selectedFor": "El asiento {seat} es tuyo durante {time}.",
    "say.released": "Has liberado el asiento {seat}.",
    "say.expired": "Se acabó el tiempo de tu asiento {seat}: vuelve a estar libre.",
    "say.notJoined": "Conéctate y entra en una sala para elegir asientos.",
    "say.other": "El asiento {seat} lo tiene otra persona.",
    "say.otherNamed": "El asiento {seat} lo tiene {name}.",
    "say.noAnswer": "El servidor no ha respondido sobre el asiento {seat}. Inténtalo de nuevo.",
    "say.badClientId": "Identificador no válido: de 1 a 64 letras, cifras o . _ : @ - (sin acentos ni espacios).",
    "say.badRoomId": "Sala no válida: de 1 a 64 letras, cifras o . _ : @ - (sin acentos ni espacios).",
    "say.authExpiring": "Tu sesión está a punto de caducar.",
    "error.invalid_message": "El servidor no ha entendido la petición: {text}",
    "error.seat_taken": "El asiento {seat} ya lo tiene otra persona.",
    "error.seat_takenUntil": "El asiento {seat} ya lo tiene otra persona; como mucho durante {time} más.",
    "error.not_holder": "El asiento {seat} no es tuyo, así que no puedes liberarlo.",
    "error.limit_reached": "Ya tienes todos los asientos permitidos en esta sala. Libera uno antes de elegir {seat}.",
    "error.limit_reachedRooms": "Esta conexión ya está en todas las salas permitidas.",
    "error.unauthenticated": "Hay que identificarse antes de hacer eso.",
    "error.forbidden": "No tienes permiso para hacer eso.",
    "error.rate_limited": "Demasiadas peticiones seguidas. Espera un momento y repite.",
    "error.rate_limitedFor": "Demasiadas peticiones seguidas. Espera {seconds} s y repite.",
    "error.store_unavailable": "El servidor no llega a su almacén de asientos: no se ha podido confirmar nada. Inténtalo dentro de poco.",
    "error.other": "El servidor ha rechazado la petición: {text}",
    "closed.user": "Te has desconectado. Tus asientos siguen siendo tuyos hasta que se acabe su tiempo.",
    "closed.4400": "El servidor ha cerrado la conexión: demasiados mensajes incorrectos. No se reintentará.",
    "closed.4401": "El servidor pide identificarse, y la credencial falta, no vale o ha caducado. No se reintentará.",
    "closed.4403": "El servidor no permite esta conexión (por ejemplo, el identificador no es el tuyo). No se reintentará.",
    "closed.final": "El servidor ha cerrado la conexión y pide no volver.",
    "lost.1001": "El servidor se está reiniciando. Volvemos enseguida.",
    "lost.1012": "El servidor se está reiniciando. Volvemos enseguida.",
    "lost.1013": "El servidor está lleno. Lo intentaremos de nuevo.",
    "lost.4408": "El servidor ha dejado de oírnos. Volvemos enseguida.",
    "lost.4429": "Demasiadas peticiones: el servidor nos hace esperar.",
    "lost.4440": "La conexión es demasiado lenta. Volvemos enseguida.",
    "lost.silent": "El servidor ha dejado de responder. Volvemos enseguida.",
    "lost.unreachable": "No se puede llegar al servidor. Lo intentaremos de nuevo.",
    "lost.other": "Se ha perdido la conexión. Volvemos enseguida.",
  },
  en: {
    title: "Live seats · seatws",
    heading: "Live seats",
    room: "Room",
    screen: "Screen",
    legend: "Legend",
    "legend.free": "Free",
    "legend.mine": "Yours",
    "legend.other": "Someone else's",
    "legend.pending": "Asking",
    mine: "My seats",
    "mine.empty": "You have no seats yet.",
    name: "Your name",
    "name.hint": "Goes with the seats you choose; others may see it.",
    connection: "Connection",
    clientId: "Client id",
    connect: "Connect",
    reconnect: "Reconnect",
    connectNow: "Connect now",
    disconnect: "Disconnect",
    roomId: "Room (showing)",
    join: "Join",
    leave: "Leave",
    ping: "Ping",
    latency: "Latency",
    log: "Messages",
    "status.open": "Connected",
    "status.connecting": "Connecting…",
    "status.closed": "Disconnected",
    "status.waiting": "Reconnecting in {seconds} s",
    "seat.free": "Seat {seat}, free",
    "seat.mine": "Seat {seat}, yours; press to release it",
    "seat.other": "Seat {seat}, taken",
    "seat.otherNamed": "Seat {seat}, taken by {name}",
    "seat.pending": "Seat {seat}, waiting for an answer",
    "chip.release": "Release {seat}",
    "say.connected": "Connected.",
    "say.joined": "You are in room {room}. Choose a seat.",
    "say.left": "You have left room {room}.",
    "say.leftForbidden": "You are no longer allowed in room {room}.",
    "say.selected": "Seat {seat} is yours.",
    "say.selectedFor": "Seat {seat} is yours for {time}.",
    "say.released": "You have released seat {seat}.",
    "say.expired": "Time is up for your seat {seat}: it is free again.",
    "say.notJoined": "Connect and join a room to choose seats.",
    "say.other": "Seat {seat} is someone else's.",
    "say.otherNamed": "Seat {seat} is held by {name}.",
    "say.noAnswer": "The server has not answered about seat {seat}. Try again.",
    "say.badClientId": "Not a valid id: 1 to 64 letters, digits or . _ : @ - (no accents, no spaces).",
    "say.badRoomId": "Not a valid room: 1 to 64 letters, digits or . _ : @ - (no accents, no spaces).",
    "say.authExpiring": "Your sign-in is about to end.",
    "error.invalid_message": "The server did not understand the request: {text}",
    "error.seat_taken": "Seat {seat} is already someone else's.",
    "error.seat_takenUntil": "Seat {seat} is already someone else's, for {time} more at the most.",
    "error.not_holder": "Seat {seat} is not yours, so you can't release it.",
    "error.limit_reached": "You hold as many seats as this room allows. Release one before choosing {seat}.",
    "error.limit_reachedRooms": "This connection is in as many rooms as it may be.",
    "error.unauthenticated": "That needs a sign-in first.",
    "error.forbidden": "You are not allowed to do that.",
    "error.rate_limited": "Too many requests at once. Wait a moment and repeat.",
    "error.rate_limitedFor": "Too many requests at once. Wait {seconds} s and repeat.",
    "error.store_unavailable": "The server can't reach its seat store: nothing could be confirmed. Try again shortly.",
    "error.other": "The server refused the request: {text}",
    "closed.user": "You have disconnected. Your seats stay yours until their time is up.",
    "closed.4400": "The server closed the connection: too many bad messages. Not trying again.",
    "closed.4401": "The server asks for a sign-in, and the token is missing, bad or ended. Not trying again.",
    "closed.4403": "The server does not allow this connection (the client id may not be yours). Not trying again.",
    "closed.final": "The server closed the connection and asks not to come back.",
    "lost.1001": "The server is restarting. Back in a moment.",
    "lost.1012": "The server is restarting. Back in a moment.",
    "lost.1013": "The server is full. We will try again.",
    "lost.4408": "The server stopped hearing us. Back in a moment.",
    "lost.4429": "Too many requests: the server makes us wait.",
    "lost.4440": "The connection is too slow. Back in a moment.",
    "lost.silent": "The server stopped answering. Back in a moment.",
    "lost.unreachable": "The server can't be reached. We will try again.",
    "lost.other": "The connection was lost. Back in a moment.",
  },
};

/** The first language of the visitor's list that we speak; English for everyone else. */
export function pickLanguage(languages) {
  for (const each of languages ?? []) {
    const language = String(each).toLowerCase().split("-")[0];
    if (Object.hasOwn(WORDS, language)) return language;
  }
  return "en";
}

/** `key` in words, its {placeholders} filled from `values`. */
export function translate(language, key, values = {}) {
  // One pass with a function: a name such as "{seat}" or "$&" goes in as it is.
  return WORDS[language][key].replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** The first of `keys` that has words. Codes come from the server, hence hasOwn. */
function knownKey(...keys) {
  return keys.find((key) => Object.hasOwn(WORDS.en, key));
}

/**
 * Which words tell a visitor about an `error` frame.
 *
 * @param {object} error the frame
 * @param {number} serverNow Unix ms, server's clock
 * @returns {{key: string, values: object}} for `translate`
 */
export function explainError(error, serverNow) {
  const values = { seat: error.seat_id ?? "?", text: error.message ?? error.code ?? "?" };
  const code = String(error.code);
  if (code === "seat_taken") {
    const until = parseTime(error.conflicts?.find?.((each) => each?.seat_id === error.seat_id)?.expires_at);
    if (until !== null && until > serverNow) {
      return { key: "error.seat_takenUntil", values: { ...values, time: formatCountdown(until - serverNow) } };
    }
  }
  if (code === "limit_reached" && error.request === "join_room") {
    return { key: "error.limit_reachedRooms", values };
  }
  if (code === "rate_limited" && error.retry_after_ms > 0) {
    const seconds = Math.ceil(error.retry_after_ms / 1000);
    return { key: "error.rate_limitedFor", values: { ...values, seconds } };
  }
  return { key: knownKey(`error.${code}`, "error.other"), values };
}

/* ------------------------------------------------------------- connection */

/**
 * A WebSocket that comes back. One socket at a time; `connect` and `disconnect` may be called in
 * any state.
 *
 * Reports through three functions:
 *   onStatus({state: "open" | "connecting"})
 *   onStatus({state: "waiting", why, retryAt})   `why`: a key of WORDS; `retryAt`: on `monotonicNow`
 *   onStatus({state: "closed", why})
 *   onFrame(object)                              one JSON object from the server
 *   onLine("in" | "out" | "info", text)          for the log
 */
class Connection {
  #url = null;
  #socket = null;
  #status = { state: "closed", why: null };
  #attempt = 0;
  #openedAt = null;
  #goodbye = null;
  #openTimer = null;
  #retryTimer = null;
  #pingTimer = null;
  #deadTimer = null;
  #pinged = null;
  #requests = 0;

  constructor({ onStatus, onFrame, onLine }) {
    this.onStatus = onStatus;
    this.onFrame = onFrame;
    this.onLine = onLine;
  }

  get status() {
    return this.#status;
  }

  /** Open `url` now, in place of whatever was open or awaited. */
  connect(url) {
    this.#url = url;
    this.#attempt = 0;
    this.#open();
  }

  /** Close, and stay closed until `connect`. */
  disconnect() {
    if (this.#status.state === "closed") return;
    this.#drop();
    this.onLine("info", "closed by the visitor");
    this.#tell({ state: "closed", why: "closed.user" });
  }

  /**
   * Send one message with a fresh request_id.
   *
   * @returns {?string} that id, or null if there is no open connection and nothing was sent
   */
  send(message) {
    if (this.#status.state !== "open" || this.#socket.readyState !== WebSocket.OPEN) return null;
    this.#requests += 1;
    const requestId = String(this.#requests);
    const text = JSON.stringify({ ...message, request_id: requestId });
    this.#socket.send(text);
    this.onLine("out", text);
    return requestId;
  }

  /** Ask for a sign of life: a pong for the latency, and any frame within 10 s to stay. */
  ping() {
    const requestId = this.send({ type: "ping" });
    if (requestId === null) return;
    this.#pinged = { requestId, at: monotonicNow() };
    clearTimeout(this.#pingTimer);
    this.#pingTimer = setTimeout(() => this.ping(), PING_EVERY_MS);
    // Not pushed back by a second ping: it counts from the oldest that nothing has answered.
    this.#deadTimer ??= setTimeout(() => this.#lost(null, "lost.silent"), PONG_WITHIN_MS);
  }

  /** Round trip in ms of the ping that this pong answers; null if it is another's. */
  roundTrip(pong) {
    const pinged = this.#pinged;
    if (pinged === null || (pong.request_id ?? pinged.requestId) !== pinged.requestId) return null;
    this.#pinged = null;
    return monotonicNow() - pinged.at;
  }

  /** The network or the tab came back: don't sit out a delay, don't trust a connection that slept. */
  wake() {
    if (this.#status.state === "waiting") this.#open();
    else this.ping();
  }

  #open() {
    this.#drop();
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.onLine("info", `connecting to ${this.#url}`);
    this.#openTimer = setTimeout(() => this.#lost(null, "lost.unreachable"), OPEN_WITHIN_MS);
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#received(event.data);
    // A refused handshake is 1006 like any loss; the browser doesn't tell a page what it was.
    socket.onclose = (event) => this.#lost(event.code, null, event.reason);
    this.#tell({ state: "connecting" });
  }

  #opened() {
    clearTimeout(this.#openTimer);
    this.#openedAt = monotonicNow();
    this.onLine("info", "open");
    this.#tell({ state: "open" });
    // The first pong sets the clock better than a snapshot can, and shows a latency at once.
    this.ping();
  }

  #received(data) {
    clearTimeout(this.#deadTimer);
    this.#deadTimer = null;
    if (typeof data !== "string") return this.onLine("in", "(binary frame, ignored)");
    this.onLine("in", data);
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return this.onLine("info", "not JSON, ignored");
    }
    if (message === null || typeof message !== "object") return;
    if (message.type === "goodbye") this.#goodbye = message;
    this.onFrame(message);
  }

  #lost(code, why, reason = "") {
    const goodbye = this.#goodbye;
    const wasOpen = this.#openedAt !== null;
    // Only after it proved stable: a server that accepts and closes at once must not be hammered.
    if (wasOpen && monotonicNow() - this.#openedAt >= STABLE_AFTER_MS) this.#attempt = 0;
    this.#drop();
    // Our own verdicts have no code; the goodbye's counts where the close frame got lost (1006).
    const meant = FINAL_CODES.has(code) ? code : (goodbye?.code ?? code);
    this.onLine("info", `closed${code === null ? "" : ` ${code}`} ${reason || why || ""}`.trimEnd());

    if (!comesBack(code, goodbye)) {
      this.#tell({ state: "closed", why: knownKey(`closed.${meant}`, "closed.final") });
      return;
    }
    const delay = backoffMs(this.#attempt, goodbye?.retry_after_ms);
    this.#attempt += 1;
    this.#retryTimer = setTimeout(() => this.#open(), delay);
    this.#tell({
      state: "waiting",
      why: why ?? knownKey(`lost.${meant}`, wasOpen ? "lost.other" : "lost.unreachable"),
      retryAt: monotonicNow() + delay,
    });
  }

  /** Forget the socket and every timer. A dead peer would keep the browser's close() waiting. */
  #drop() {
    for (const timer of [this.#openTimer, this.#retryTimer, this.#pingTimer, this.#deadTimer]) {
      clearTimeout(timer);
    }
    this.#deadTimer = null;
    this.#pinged = null;
    this.#goodbye = null;
    this.#openedAt = null;
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #tell(status) {
    this.#status = status;
    this.onStatus(status);
  }
}

/** ms that only go forward: the visitor may set the clock right while the page is open. */
function monotonicNow() {
  return performance.now();
}

/* ------------------------------------------------------------------ views */

/** Touch the DOM only where the text differs: ticks come four times a second. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

const STATE_CLASS = { free: "", mine: "selected", other: "other-selected", pending: "pending" };
/** Under this, a hold's seat is marked: time to decide. */
const URGENT_MS = 30_000;

/** The seats as buttons. Kept in a Map by id: server text never becomes a selector. */
class Hall {
  #seats = new Map();

  constructor(root, onSeat) {
    for (const row of ROWS) {
      for (let column = 1; column <= SEATS_PER_ROW; column += 1) {
        const id = `${row}${column}`;
        const seat = element("button", "seat");
        seat.type = "button";
        seat.id = `seat_${id}`;
        const time = element("span", "seat-time");
        seat.append(element("span", "seat-label", id), time);
        seat.addEventListener("click", () => onSeat(id));
        root.append(seat);
        this.#seats.set(id, { button: seat, time });
      }
    }
    root.addEventListener("keydown", (event) => this.#move(event));
  }

  ids() {
    return this.#seats.keys();
  }

  has(id) {
    return this.#seats.has(id);
  }

  /** @param {{state: string, label: string, usable: boolean, available: boolean}} look */
  paint(id, { state, label, usable, available }) {
    const { button, time } = this.#seats.get(id);
    const refused = button.classList.contains("refused");
    button.className = ["seat", STATE_CLASS[state], available ? "" : "unavailable", refused ? "refused" : ""]
      .filter(Boolean)
      .join(" ");
    button.dataset.state = state;
    // Not `disabled`: that would take the focus away in the middle of a keyboard visit, and hide why.
    button.setAttribute("aria-disabled", String(!usable));
    button.setAttribute("aria-label", label);
    button.title = label;
    if (state !== "mine") setText(time, "");
  }

  countdown(id, ms) {
    const seat = this.#seats.get(id);
    if (!seat) return;
    setText(seat.time, ms === null ? "" : formatCountdown(ms));
    seat.button.classList.toggle("urgent", ms !== null && ms <= URGENT_MS);
  }

  refuse(id) {
    const button = this.#seats.get(id)?.button;
    if (!button) return;
    button.classList.remove("refused");
    void button.offsetWidth; // a reflow between, or the shake of a second refusal doesn't start
    button.classList.add("refused");
    setTimeout(() => button.classList.remove("refused"), 600);
  }

  focus(id) {
    this.#seats.get(id)?.button.focus();
  }

  #move(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const here = event.target.closest?.(".seat")?.id.slice("seat_".length);
    const there = here && neighbour(here, event.key);
    if (!there) return;
    event.preventDefault(); // the arrows would scroll as well
    this.focus(there);
  }
}

/** One's own seats as buttons, those outside this hall's plan included: they count and must be releasable. */
class MyList {
  #chips = new Map();

  constructor(root, empty, { onRelease, onFocusLost, label }) {
    this.root = root;
    this.empty = empty;
    this.onRelease = onRelease;
    this.onFocusLost = onFocusLost;
    this.label = label;
  }

  /** Keeps the chips of seats that stay, and so the focus on them. */
  show(ids) {
    for (const [id, chip] of this.#chips) {
      if (ids.includes(id)) continue;
      const focused = chip.item.contains(document.activeElement);
      chip.item.remove();
      this.#chips.delete(id);
      if (focused) this.onFocusLost(id);
    }
    for (const id of ids) {
      if (!this.#chips.has(id)) this.#add(id);
    }
    this.empty.hidden = ids.length > 0;
  }

  countdown(id, ms) {
    const chip = this.#chips.get(id);
    if (chip) setText(chip.time, ms === null ? "" : ` ${formatCountdown(ms)}`);
  }

  #add(id) {
    const item = element("li");
    const button = element("button", "chip");
    button.type = "button";
    button.setAttribute("aria-label", this.label(id));
    const time = element("span");
    button.append(element("b", "", id), time);
    button.addEventListener("click", () => this.onRelease(id));
    item.append(button);
    this.root.append(item);
    this.#chips.set(id, { item, time });
  }
}

/** The last lines in both directions. */
class Log {
  static SIGNS = { in: "↓", out: "↑", info: "·" };
  #scrolling = false;

  constructor(root) {
    this.root = root;
  }

  add(direction, text) {
    // Asked before the new line makes it untrue: someone who scrolled up is reading.
    if (!this.#scrolling && this.#atEnd()) this.#scrollSoon();
    const line = element("li", direction);
    const now = new Date();
    const millis = String(now.getMilliseconds()).padStart(3, "0");
    const time = element("time", "", `${now.toLocaleTimeString("en-GB")}.${millis}`);
    time.dateTime = now.toISOString();
    const cut = text.length > LOG_LINE_CHARS ? `${text.slice(0, LOG_LINE_CHARS)}… (${text.length})` : text;
    line.append(time, element("span", "dir", Log.SIGNS[direction]), element("span", "", cut));
    this.root.append(line);
    while (this.root.childElementCount > LOG_LINES) this.root.firstElementChild.remove();
  }

  #atEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.root;
    return scrollHeight - scrollTop - clientHeight < 8;
  }

  /** Once a frame, not once a line: each reading of scrollHeight lays the page out anew. */
  #scrollSoon() {
    this.#scrolling = true;
    requestAnimationFrame(() => {
      this.#scrolling = false;
      this.root.scrollTop = this.root.scrollHeight;
    });
  }
}

/* -------------------------------------------------------------------- app */

const MADE_HERE = /^user_[a-z0-9]{12}$/;

/** "user_…" as in the guide, but from random bytes: two visitors may come in the same millisecond. */
function newClientId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `user_${Array.from(bytes, (byte) => (byte % 36).toString(36)).join("")}`;
}

/** sessionStorage as a place to try: with cookies blocked, touching it throws. */
const memory = {
  read(key) {
    try {
      return sessionStorage.getItem(`seatws.${key}`);
    } catch {
      return null;
    }
  },
  write(key, value) {
    try {
      sessionStorage.setItem(`seatws.${key}`, value);
    } catch {
      // Then a reload is a new visitor.
    }
  },
};

/**
 * This tab's client id: `remembered`, unless another tab of this browser lives under it.
 *
 * sessionStorage alone is not enough: duplicating a tab copies it, and both would be one visitor.
 * A lock ends with its tab. A reload may ask before the old page's lock is gone, hence the wait.
 * An id typed by hand is the visitor's own choice, two tabs of it included.
 */
async function claimClientId(remembered) {
  if (!navigator.locks || !MADE_HERE.test(remembered)) return remembered; // no locks: plain http, not localhost
  const hold = (id, signal) =>
    new Promise((resolve, reject) => {
      const forever = () => {
        resolve(id);
        return new Promise(() => {});
      };
      navigator.locks.request(`seatws.client.${id}`, { signal }, forever).catch(reject);
    });
  try {
    return await hold(remembered, AbortSignal.timeout(500));
  } catch {
    return hold(newClientId());
  }
}

class App {
  #room = emptyRoom();
  #clientId = null;
  /** The room to be in whenever connected; null after leaving. */
  #wanted = null;
  /** Seat id → {action, requestId, since}: asked, not answered. */
  #pending = new Map();
  #offset = null;
  #joinAttempt = 0;
  #joinTimer = null;
  /** Set while #message tells of a lost connection, which being connected again makes untrue. */
  #complaining = false;

  constructor(language) {
    this.language = language;
    this.ui = Object.fromEntries(
      [
        "status", "status-dot", "status-text", "client-id", "room-id", "name", "connect", "disconnect",
        "join", "leave", "ping", "latency", "seats", "message", "log", "mine", "mine-empty", "room-name",
        "count-free", "count-mine", "count-other", "connection-form", "room-form",
      ].map((id) => [id, document.getElementById(id)]),
    );
    this.log = new Log(this.ui.log);
    this.hall = new Hall(this.ui.seats, (seatId) => this.#clicked(seatId));
    this.mine = new MyList(this.ui.mine, this.ui["mine-empty"], {
      onRelease: (seatId) => this.#clicked(seatId),
      onFocusLost: (seatId) => this.hall.focus(seatId),
      label: (seat) => this.#t("chip.release", { seat }),
    });
    this.connection = new Connection({
      onStatus: (status) => this.#statusChanged(status),
      onFrame: (message) => this.#frame(message),
      onLine: (direction, text) => this.log.add(direction, text),
    });
  }

  async start() {
    this.#speak();
    this.#fillFields();
    this.#listen();
    this.#paintAll();
    this.#showStatus();
    setInterval(() => this.#tick(), 250);

    const field = this.ui["client-id"];
    const remembered = field.value;
    const claimed = await claimClientId(remembered);
    // Whatever was typed meanwhile stands.
    if (field.value === remembered) field.value = claimed;
    if (this.connection.status.state === "closed") this.#connect();
  }

  /* What the visitor does */

  #listen() {
    const { ui } = this;
    ui["connection-form"].addEventListener("submit", (event) => {
      event.preventDefault();
      this.#connect();
    });
    ui["room-form"].addEventListener("submit", (event) => {
      event.preventDefault();
      this.#join();
    });
    ui.disconnect.addEventListener("click", () => this.connection.disconnect());
    ui.leave.addEventListener("click", () => this.#leave());
    ui.ping.addEventListener("click", () => this.connection.ping());
    ui.name.addEventListener("input", () => memory.write("name", ui.name.value));

    window.addEventListener("online", () => this.connection.wake());
    window.addEventListener("pageshow", (event) => event.persisted && this.connection.wake());
    document.addEventListener("visibilitychange", () => {
      // Timers of a hidden tab hardly run: ask now, not when the next one happens to.
      if (document.visibilityState === "visible") this.connection.wake();
    });
  }

  #fillFields() {
    const asked = new URLSearchParams(location.search).get("room");
    if (asked !== null) this.ui["room-id"].value = asked;
    this.ui["client-id"].value = memory.read("client-id") ?? newClientId();
    this.ui.name.value = memory.read("name") ?? "";
    this.#wanted = this.#validRoom();
  }

  /** Connect, or connect anew: also the way to change the client id. */
  #connect() {
    const clientId = this.ui["client-id"].value.trim();
    if (!this.#check("client-id", isClientId(clientId), "say.badClientId")) return;
    memory.write("client-id", clientId);
    if (clientId !== this.#clientId) {
      // Another visitor now: "mine" and "others'" trade places in what is on screen.
      this.#clientId = clientId;
      this.#paintAll();
    }
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    // All characters of a client id may stand in a path as they are (RFC 3986, 3.3).
    this.connection.connect(`${scheme}://${location.host}/ws/${clientId}`);
  }

  #join() {
    const roomId = this.#validRoom();
    if (roomId === null) return;
    const url = new URL(location.href);
    url.searchParams.set("room", roomId);
    history.replaceState(null, "", url); // a reload, or a link sent to a friend, opens this room
    if (this.#wanted !== null && this.#wanted !== roomId) {
      this.connection.send({ type: "leave_room", room_id: this.#wanted });
    }
    this.#wanted = roomId;
    if (this.connection.status.state === "closed") this.#connect();
    else this.#sendJoin();
  }

  #leave() {
    const roomId = this.#wanted ?? this.#room.id;
    this.#wanted = null;
    clearTimeout(this.#joinTimer);
    if (roomId === null || this.connection.send({ type: "leave_room", room_id: roomId }) !== null) return;
    // Nobody to answer: what is on screen is only a memory of the room.
    this.#room = emptyRoom();
    this.#paintAll();
  }

  #clicked(seatId) {
    switch (seatState(this.#room, seatId, this.#clientId, this.#pending)) {
      case "free":
        return this.#ask(seatId, { type: "select_seat", user_info: this.#userInfo() });
      case "mine":
        return this.#ask(seatId, { type: "release_seat" });
      case "other": {
        const { name } = this.#room.holds.get(seatId);
        return this.#say("info", name ? "say.otherNamed" : "say.other", { seat: seatId, name });
      }
      default: // pending: the answer is on its way
    }
  }

  #ask(seatId, { type, ...fields }) {
    const requestId = this.#room.joined
      ? this.connection.send({ type, room_id: this.#room.id, seat_id: seatId, ...fields })
      : null;
    if (requestId === null) return this.#say("error", "say.notJoined");
    this.#pending.set(seatId, { requestId, since: monotonicNow() });
    this.#paint(seatId);
  }

  #userInfo() {
    const name = shortName(this.ui.name.value);
    return name === null ? {} : { name };
  }

  #validRoom() {
    const roomId = this.ui["room-id"].value.trim();
    return this.#check("room-id", isId(roomId), "say.badRoomId") ? roomId : null;
  }

  #check(field, valid, complaint) {
    this.ui[field].setAttribute("aria-invalid", String(!valid));
    if (!valid) {
      this.#say("error", complaint);
      this.ui[field].focus();
    }
    return valid;
  }

  /* What the connection and the server say */

  #statusChanged(status) {
    if (status.state === "open") {
      if (this.#complaining || this.#wanted === null) this.#say("info", "say.connected");
      this.#joinAttempt = 0;
      this.#sendJoin();
    } else {
      clearTimeout(this.#joinTimer);
      // Whether an unanswered request was done, the snapshot after the next join will show.
      this.#pending.clear();
      this.#room = staleRoom(this.#room);
      setText(this.ui.latency, "—");
      this.#paintAll();
    }
    if (status.why) {
      this.#say(status.why === "closed.user" ? "info" : "error", status.why);
      this.#complaining = true;
    }
    this.#showStatus();
  }

  #sendJoin() {
    clearTimeout(this.#joinTimer);
    if (this.#wanted !== null) this.connection.send({ type: "join_room", room_id: this.#wanted });
  }

  #frame(message) {
    this.#learnTime(message);
    const before = this.#room;
    const asked = this.#settle(message);
    this.#room = reduceRoom(this.#room, message);
    this.#repaint(before, asked);

    switch (message.type) {
      case "auth_ok":
        // The token's word on who we are beats the URL's.
        if (typeof message.client_id === "string" && message.client_id !== this.#clientId) {
          this.#clientId = message.client_id;
          this.#paintAll();
        }
        break;
      case "auth_expiring":
        this.#say("info", "say.authExpiring");
        break;
      case "room_joined":
        this.#joinAttempt = 0;
        if (!before.joined || before.id !== message.room_id) this.#say("info", "say.joined", { room: message.room_id });
        break;
      case "room_left":
        this.#roomLeft(before, message);
        break;
      case "seat_selected":
        if (asked) this.#saySelected(message.seat_id);
        break;
      case "seat_released":
        this.#sayReleased(before, message, asked);
        break;
      case "error":
        this.#refused(message, asked);
        break;
      case "pong":
        break; // #learnTime had it
      default:
    }
  }

  #learnTime(message) {
    let offset = null;
    if (message.type === "pong") {
      const roundTrip = this.connection.roundTrip(message);
      if (roundTrip === null) return;
      setText(this.ui.latency, `${roundTrip < 10 ? roundTrip.toFixed(1) : Math.round(roundTrip)} ms`);
      offset = clockOffset(message.timestamp, monotonicNow(), roundTrip);
    } else if (message.type === "current_selections") {
      offset = clockOffset(message.server_time, monotonicNow());
    }
    if (offset !== null) this.#offset = offset;
  }

  /**
   * Take off the list the request that this frame answers.
   *
   * By request_id where there is one. A server that knows only the guide sends none: then an own
   * seat event, or an error, about that seat is the answer.
   *
   * @returns {?string} its seat id
   */
  #settle(message) {
    if (!["seat_selected", "seat_released", "error"].includes(message.type)) return null;
    for (const [seatId, { requestId }] of this.#pending) {
      const answers =
        message.request_id === undefined
          ? message.seat_id === seatId && (message.type === "error" || message.client_id === this.#clientId)
          : message.request_id === requestId;
      if (!answers) continue;
      this.#pending.delete(seatId);
      return seatId;
    }
    return null;
  }

  #roomLeft(before, message) {
    if (message.reason === "forbidden" && message.room_id === this.#wanted) this.#wanted = null;
    if (before.id !== message.room_id) return;
    const forbidden = message.reason === "forbidden";
    this.#say(forbidden ? "error" : "info", forbidden ? "say.leftForbidden" : "say.left", { room: message.room_id });
  }

  #saySelected(seat) {
    const remaining = this.#remaining(seat);
    if (remaining === null) this.#say("good", "say.selected", { seat });
    else this.#say("good", "say.selectedFor", { seat, time: formatCountdown(remaining) });
  }

  #sayReleased(before, message, asked) {
    const seat = message.seat_id;
    const wasMine = before.holds.get(seat)?.clientId === this.#clientId;
    if (message.reason === "expired" && wasMine) this.#say("error", "say.expired", { seat });
    else if (asked) this.#say("info", "say.released", { seat });
  }

  #refused(error, asked) {
    const seatId = asked ?? (typeof error.seat_id === "string" ? error.seat_id : undefined);
    if (seatId !== undefined) this.hall.refuse(seatId);
    const { key, values } = explainError({ ...error, seat_id: seatId }, this.#serverNow() ?? 0);
    this.#say("error", key, values);
    const joining = error.request === "join_room" && error.room_id === this.#wanted;
    if (joining && error.retryable === true) this.#joinLater(error);
  }

  /** A refused join leaves us outside, and nobody else asks again (PROTOCOL.md section 2). */
  #joinLater(error) {
    clearTimeout(this.#joinTimer);
    this.#joinTimer = setTimeout(() => this.#sendJoin(), backoffMs(this.#joinAttempt, error.retry_after_ms));
    this.#joinAttempt += 1;
  }

  /* Time */

  /** Unix ms on the server's clock; null until it told one. The visitor's own clock plays no part. */
  #serverNow() {
    return this.#offset === null ? null : monotonicNow() + this.#offset;
  }

  /** ms left of a hold; null where unknown. At zero it stays "0:00" until the server says it is over. */
  #remaining(seatId) {
    const expiresAt = this.#room.holds.get(seatId)?.expiresAt ?? null;
    const now = this.#serverNow();
    return expiresAt === null || now === null ? null : Math.max(0, expiresAt - now);
  }

  #tick() {
    this.#showStatus();
    for (const seatId of this.#mySeats()) this.#showCountdown(seatId);
    for (const [seatId, { since }] of this.#pending) {
      if (monotonicNow() - since < ANSWER_WITHIN_MS) continue;
      this.#pending.delete(seatId);
      this.#paint(seatId);
      this.#say("error", "say.noAnswer", { seat: seatId });
    }
  }

  /* What is shown */

  #t(key, values) {
    return translate(this.language, key, values);
  }

  #speak() {
    document.documentElement.lang = this.language;
    for (const each of document.querySelectorAll("[data-i18n]")) each.textContent = this.#t(each.dataset.i18n);
    for (const each of document.querySelectorAll("[data-i18n-label]")) {
      each.setAttribute("aria-label", this.#t(each.dataset.i18nLabel));
    }
  }

  /** @param {"info" | "good" | "error"} kind */
  #say(kind, key, values) {
    this.#complaining = false;
    this.ui.message.dataset.kind = kind;
    // Always a new text node: a live region is silent about a text that "changes" to itself.
    this.ui.message.replaceChildren(document.createTextNode(this.#t(key, values)));
  }

  #showStatus() {
    const { state, retryAt } = this.connection.status;
    const { ui } = this;
    const seconds = state === "waiting" ? Math.max(0, Math.ceil((retryAt - monotonicNow()) / 1000)) : 0;
    setText(ui["status-text"], this.#t(`status.${state}`, { seconds }));
    if (ui.status.dataset.state === state) return;
    ui.status.dataset.state = state;
    const looks = { open: "status-connected", closed: "status-disconnected" }[state] ?? "status-connecting";
    ui["status-dot"].className = `status-indicator ${looks}`;
    ui.connect.classList.toggle("primary", state !== "open");
    setText(ui.connect, this.#t({ closed: "connect", waiting: "connectNow" }[state] ?? "reconnect"));
  }

  #mySeats() {
    return [...this.#room.holds].filter(([, hold]) => hold.clientId === this.#clientId).map(([id]) => id);
  }

  /** Paint what one frame changed: a busy room must not cost fifty buttons a change. */
  #repaint(before, asked) {
    const after = this.#room;
    if (after.joined !== before.joined || after.id !== before.id) return this.#paintAll();
    if (asked !== null) this.#paint(asked);
    if (after.holds === before.holds) return;
    for (const seatId of this.hall.ids()) {
      if (after.holds.get(seatId) !== before.holds.get(seatId)) this.#paint(seatId);
    }
    this.#showTotals();
  }

  #paintAll() {
    setText(this.ui["room-name"], this.#room.id ?? "—");
    for (const seatId of this.hall.ids()) this.#paint(seatId);
    this.#showTotals();
  }

  #paint(seatId) {
    if (!this.hall.has(seatId)) return; // another client of this room may have a larger plan
    const state = seatState(this.#room, seatId, this.#clientId, this.#pending);
    const name = state === "other" ? this.#room.holds.get(seatId).name : null;
    this.hall.paint(seatId, {
      state,
      label: this.#t(name ? "seat.otherNamed" : `seat.${state}`, { seat: seatId, name }),
      usable: this.#room.joined && (state === "free" || state === "mine"),
      available: this.#room.joined,
    });
    if (state === "mine") this.#showCountdown(seatId);
  }

  #showCountdown(seatId) {
    const remaining = this.#remaining(seatId);
    this.mine.countdown(seatId, remaining);
    // Not on a seat being released: its look is "pending".
    if (!this.#pending.has(seatId)) this.hall.countdown(seatId, remaining);
  }

  #showTotals() {
    const mine = this.#mySeats();
    const onPlan = [...this.hall.ids()];
    setText(this.ui["count-free"], String(onPlan.filter((id) => !this.#room.holds.has(id)).length));
    setText(this.ui["count-mine"], String(mine.length));
    setText(this.ui["count-other"], String(this.#room.holds.size - mine.length));
    this.mine.show(mine);
    for (const seatId of mine) this.#showCountdown(seatId);
  }
}

// In Node, where the rules are tested, there is no page to start.
if (typeof document !== "undefined") new App(pickLanguage(navigator.languages)).start();
