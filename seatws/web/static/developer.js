/** The developers' panel: who one is, which rooms, what the wire does, and ways to break it. */

import { MessageLog } from "./log.js";
import { t } from "./words.js";

const $ = (id) => document.getElementById(id);
const OPEN = "seatws.developer";

/** The client id that a token names, if it can be read; whether it is good, the server says. */
export function subjectOf(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replace(/[-_]/g, (c) => (c === "-" ? "+" : "/"))), (c) =>
      c.charCodeAt(0),
    );
    const { sub } = JSON.parse(new TextDecoder().decode(bytes));
    return typeof sub === "string" ? sub : null;
  } catch {
    return null;
  }
}

/** While on, no WebSocket can be had on this page, as behind a proxy that lets none through. */
class WebSocketBlock {
  on = false;
  #real = globalThis.WebSocket;

  toggle() {
    this.on = !this.on;
    globalThis.WebSocket = this.on ? WebSocketBlock.#none : this.#real;
  }

  static #none = class {
    constructor() {
      throw new DOMException("WebSockets are blocked on this page", "SecurityError");
    }
  };
}

export class DeveloperPanel {
  /**
   * @param {() => import("./seat-selection-client.js").SeatSelectionClient} client the one in use
   * @param {object} handlers
   * @param {(clientId: string, token: string) => void} handlers.onIdentity
   * @param {(room: string) => void} handlers.onJoin also for a room that is to be shown
   * @param {(room: string) => void} handlers.onLeave
   */
  constructor(client, { onIdentity, onJoin, onLeave }) {
    this.client = client;
    this.onJoin = onJoin;
    this.onLeave = onLeave;
    this.log = new MessageLog($("log"));
    this.block = new WebSocketBlock();
    this.#keepOpen();
    const [before, after] = t("dev.hint", { code: "\0" }).split("\0");
    const code = document.createElement("code");
    code.textContent = "seats.client";
    $("dev-hint").append(before, code, after);

    $("token").addEventListener("input", () => {
      const subject = subjectOf($("token").value.trim());
      if (subject) $("client-id").value = subject;
    });
    $("identity-form").addEventListener("submit", (event) => {
      event.preventDefault();
      onIdentity($("client-id").value.trim(), $("token").value.trim());
    });
    $("room-form").addEventListener("submit", (event) => {
      event.preventDefault();
      onJoin($("room-id").value.trim());
    });
    $("drop").addEventListener("click", () => this.#drop());
    $("block").addEventListener("click", () => {
      this.block.toggle();
      $("block").setAttribute("aria-pressed", String(this.block.on));
      this.#drop();
    });
    $("ping").addEventListener("click", () => this.client().ping().catch(() => {}));
    $("disconnect").addEventListener("click", () => {
      const { status } = this.client();
      if (status.state === "disconnected") this.client().connect();
      else this.client().disconnect();
    });
    $("log-clear").addEventListener("click", () => this.log.clear());
    $("log-pause").addEventListener("click", () => {
      this.log.paused = !this.log.paused;
      $("log-pause").setAttribute("aria-pressed", String(this.log.paused));
    });
  }

  /** Listen to a new client. */
  follow(client) {
    $("client-id").value = client.clientId;
    client.on("sent", (frame) => this.log.add("sent", frame));
    client.on("message", (frame) => {
      this.log.add("received", frame);
      if (frame.type === "pong") this.paint();
    });
    client.on("status", (status) => {
      const { state, transport, code } = status;
      this.log.add("note", [state, transport, code].filter(Boolean).join(" · "));
      this.paint();
    });
    this.paint();
  }

  /** Show what the client says of its connection and its rooms. */
  paint() {
    const { status, latency, room, rooms } = this.client();
    $("transport").textContent = status.transport ?? "—";
    $("latency").textContent = latency === null ? "—" : `${latency.toFixed(1)} ms`;
    $("rev").textContent = room?.rev ?? "—";
    $("drop").disabled = status.transport !== "websocket";
    $("ping").disabled = status.state !== "connected";
    $("disconnect").textContent = t(status.state === "disconnected" ? "connect" : "disconnect");
    const shown = JSON.stringify([...rooms.keys(), room?.room_id]);
    if (shown !== this.roomsShown) this.#paintRooms([...rooms.keys()], room?.room_id);
    this.roomsShown = shown;
  }

  /** Bring the panel before the visitor's eyes, at a field. */
  showField(id) {
    $("developer").open = true;
    $(id).focus();
  }

  /** Mark a field as wrong, or as right. */
  judge(id, isRight) {
    $(id).setAttribute("aria-invalid", String(!isRight));
    if (!isRight) $(id).focus();
  }

  #drop() {
    this.log.add("note", "drop");
    this.client().ws?.close();
  }

  #paintRooms(ids, current) {
    const focused = document.activeElement?.closest?.("#rooms li")?.dataset.room;
    $("rooms").replaceChildren(
      ...ids.map((id) => {
        const line = document.createElement("li");
        line.dataset.room = id;
        const show = document.createElement("button");
        show.type = "button";
        show.textContent = id;
        show.setAttribute("aria-label", t("rooms.show", { room: id }));
        if (id === current) show.setAttribute("aria-current", "true");
        show.addEventListener("click", () => this.onJoin(id));
        const leave = document.createElement("button");
        leave.type = "button";
        leave.textContent = "✕";
        leave.setAttribute("aria-label", t("rooms.leave", { room: id }));
        leave.addEventListener("click", () => this.onLeave(id));
        line.append(show, leave);
        return line;
      }),
    );
    if (focused === undefined) return;
    const line = [...$("rooms").children].find((each) => each.dataset.room === focused);
    (line?.querySelector("button") ?? $("room-id")).focus();
  }

  #keepOpen() {
    const kept = sessionStorage.getItem(OPEN);
    // A phone's visitor came for seats.
    $("developer").open = kept === null ? matchMedia("(min-width: 56rem)").matches : kept === "true";
    $("developer").addEventListener("toggle", () => sessionStorage.setItem(OPEN, String($("developer").open)));
  }
}
