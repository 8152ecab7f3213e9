/**
 * The page at "/": one showing's seats, live. Puts the parts together, and says what happened.
 *
 * All of the connection is the client library's; what it says of a seat is what is painted.
 */

import { SeatSelectionClient } from "./seat-selection-client.js";
import { DeveloperPanel } from "./developer.js";
import { SEAT_COUNT, bestTogether, hallSeat } from "./hall.js";
import { explainEnd, explainError } from "./reasons.js";
import { SeatsView, describe, sharedName } from "./seats.js";
import { say, showStatus } from "./status.js";
import { Tickets } from "./tickets.js";
import { formatRemaining, t, translatePage } from "./words.js";

const ID = /^(?!\.\.?$)[\w.:@-]{1,64}$/;
const URGENT_MS = 60_000;
const DEFAULT_ROOM = "funcion_123";
const $ = (id) => document.getElementById(id);
const kept = (name) => sessionStorage.getItem(`seatws.${name}`);
const keep = (name, value) => sessionStorage.setItem(`seatws.${name}`, value);

class Page {
  client = null;
  token = "";
  /** My confirmed seats of the room that is shown, to notice those that end. */
  mine = new Map();
  givingBack = new Set();
  shownRoom = null;
  lastStatus = null;
  /** The room to be in: where joining needs a sign-in, it comes after that. */
  wanted = null;

  constructor() {
    this.seats = new SeatsView($("seats"), {
      onChoose: (id) => this.choose(id),
      onLook: (id) => ($("detail").textContent = id ? describe(this.client.seat(id)) : ""),
    });
    this.tickets = new Tickets($("mine"), $("mine-title"), (id) => this.giveBack(id));
    this.developer = new DeveloperPanel(() => this.client, {
      onIdentity: (clientId, token) => this.become(clientId, token),
      onJoin: (room) => this.join(room),
      onLeave: (room) => this.leave(room),
    });
    $("name").value = kept("name") ?? "";
    $("name").addEventListener("input", () => keep("name", $("name").value));
    $("connect-now").addEventListener("click", () => this.client.connect());
    $("release-all").addEventListener("click", () => {
      for (const seat of this.client.room?.mine ?? []) this.giveBack(seat.seat_id);
    });
    for (const button of document.querySelectorAll(".best")) {
      const count = Number(button.dataset.count);
      button.setAttribute("aria-label", t("best.count", { count }));
      button.addEventListener("click", () => this.chooseTogether(count));
    }
    setInterval(() => this.tick(), 1000);
  }

  /** Begin: as who one was before a reload, in the room of the address. */
  start() {
    const asked = new URLSearchParams(location.search).get("room") ?? DEFAULT_ROOM;
    const clientId = kept("client") ?? `web_${crypto.getRandomValues(new Uint32Array(2)).join("_")}`;
    this.use(clientId, []);
    if (ID.test(asked)) this.join(asked);
    else this.refuseRoom(asked);
  }

  /** Another client, in these rooms, in place of the one there was. */
  use(clientId, rooms) {
    this.mine.clear();
    this.client?.disconnect();
    keep("client", clientId);
    const url = new URL(".", location.href).href;
    const client = new SeatSelectionClient(url, { clientId, token: this.token || null });
    this.client = client;
    globalThis.seats = { client };
    const mine = (listener) => (event) => client === this.client && listener(event);
    client.on("change", mine((change) => this.changed(change)));
    client.on("status", mine((status) => this.statusChanged(status)));
    client.on("error", mine((error) => this.failed(error)));
    client.on("message", mine((frame) => this.heard(frame)));
    client.on("expiring", mine(({ room_id: roomId, seat, remaining }) => {
      if (roomId !== client.currentRoom) return;
      say(t("say.expiring", { seat: seat.seat_id, time: formatRemaining(remaining) }));
      this.paint([seat.seat_id]);
    }));
    this.developer.follow(client);
    this.lastStatus = client.status;
    client.connect();
    for (const room of rooms) client.joinRoom(room);
    this.joinWanted();
    this.showRoom();
  }

  /* ---- what the visitor does */

  choose(id) {
    const { client } = this;
    const seat = client.seat(id);
    const name = sharedName(seat);
    if (!client.room?.joined) say(t(client.room ? "say.notLive" : "say.noRoom"), "error");
    else if (seat.pending) return;
    else if (seat.state === "mine") this.giveBack(id);
    else if (seat.state === "other") say(t(name ? "say.otherNamed" : "say.other", { seat: id, name }));
    else {
      client.selectSeat(id, this.userInfo()).then((hold) => {
        say(t("say.selected", { seat: id, time: formatRemaining(client.remaining(hold)) }), "good");
      }, () => {});
    }
  }

  chooseTogether(count) {
    const { client } = this;
    if (!client.room?.joined) return say(t(client.room ? "say.notLive" : "say.noRoom"), "error");
    const ids = bestTogether(count, (id) => client.seat(id).state === "free" && !client.seat(id).pending);
    if (!ids.length) return say(t("say.noneTogether", { count }), "error");
    client.selectSeats(ids, this.userInfo()).then(([hold]) => {
      const time = formatRemaining(client.remaining(hold));
      say(t("say.selectedMany", { seats: ids.join(", "), time }), "good");
    }, () => {});
  }

  giveBack(id) {
    const { client } = this;
    if (client.seat(id).pending) return;
    if (!client.room?.joined) return say(t("say.notLive"), "error");
    this.givingBack.add(id);
    client
      .releaseSeat(id)
      .then(() => say(t("say.released", { seat: id })), () => {})
      .finally(() => this.givingBack.delete(id));
  }

  become(clientId, token) {
    const isRight = ID.test(clientId);
    this.developer.judge("client-id", isRight);
    if (!isRight) return say(t("say.badClientId"), "error");
    this.token = token;
    if (clientId !== this.client.clientId) return this.use(clientId, [...this.client.rooms.keys()]);
    this.client.setToken(token || null);
    if (this.client.status.state !== "connected") this.client.connect();
    this.joinWanted();
  }

  join(room) {
    if (!ID.test(room)) return this.refuseRoom(room);
    this.developer.judge("room-id", true);
    $("room-id").value = "";
    this.wanted = room;
    this.client.joinRoom(room).then(() => {
      if (room === this.client.currentRoom) say(t("say.joined", { room }));
    }, () => {});
    this.showRoom();
  }

  joinWanted() {
    if (this.wanted && !this.client.room) this.join(this.wanted);
  }

  refuseRoom(room) {
    $("room-id").value = room.slice(0, 64);
    this.developer.showField("room-id");
    this.developer.judge("room-id", false);
    say(t("say.badRoomId"), "error");
  }

  leave(room) {
    this.wanted = null;
    this.client.leaveRoom(room).then(() => say(t("say.left", { room })), () => {});
    const [other] = [...this.client.rooms.keys()].slice(-1);
    if (!this.client.room && other) this.join(other);
    this.showRoom();
  }

  userInfo() {
    const name = $("name").value.trim();
    return name ? { name } : {};
  }

  /* ---- what the client says */

  changed({ room_id: roomId, seat_ids: seatIds }) {
    const { room } = this.client;
    this.developer.paint();
    if (room?.room_id !== this.shownRoom?.room_id || room?.joined !== this.shownRoom?.joined) return this.showRoom();
    if (roomId !== room?.room_id) return;
    this.shownRoom = room;
    this.paint(seatIds);
  }

  statusChanged(status) {
    const before = this.lastStatus;
    this.lastStatus = status;
    if (status.state === "disconnected") {
      if (status.code === 4401) this.askForToken();
      else say(explainEnd(status), status.code === null ? "info" : "error");
    } else if (status.state === "connecting") {
      if (before.state === "connected") say(explainEnd(status), "error");
    } else if (status.transport === "polling") say(t("say.polling"));
    else if (before.code !== null && before.state !== "connected") say(t("say.live"), "good");
    else if (before.transport === "polling") say(t("say.live"), "good");
    if (status.state === "connected") this.joinWanted();
    this.paintStatus();
  }

  failed(error) {
    const { code, room_id: roomId, seat_id: seatId, conflicts } = error;
    if (code === "closed" || code === "aborted") return; // the status says it
    if (code === "unauthenticated") return this.askForToken();
    if (roomId === this.client.currentRoom) {
      for (const id of conflicts?.map((each) => each.seat_id) ?? [seatId]) if (id) this.seats.refuse(id);
    }
    say(explainError(error, this.client), "error");
  }

  heard({ type, client_id: client }) {
    if (type === "auth_expiring" && this.token) say(t("say.tokenExpiring"), "error");
    if (type !== "auth_ok") return;
    say(t("say.tokenRenewed", { client }), "good");
    this.joinWanted();
  }

  askForToken() {
    // Where a token may follow in a message, the server would wait for it, and close; and so on.
    if (this.client.status.state !== "disconnected") this.client.disconnect();
    say(t("closed.4401"), "error");
    this.developer.showField("token");
  }

  /* ---- what is seen */

  showRoom() {
    const { room } = this.client;
    if (room?.room_id !== this.shownRoom?.room_id) this.mine.clear();
    this.shownRoom = room;
    $("room-name").textContent = room?.room_id ?? "—";
    this.developer.paint();
    this.paint([...this.seats.buttons.keys()]);
    this.paintStatus();
  }

  paint(ids) {
    const { client } = this;
    const room = client.room;
    const live = Boolean(room?.joined);
    for (const id of ids) {
      const seat = client.seat(id);
      this.noticeEnd(seat, live);
      const left = seat.state === "mine" ? client.remaining(seat) : null;
      this.seats.paint(seat, live);
      this.seats.tick(id, left === null ? "" : formatRemaining(left), left !== null && left <= URGENT_MS);
    }
    const mine = room?.mine ?? [];
    this.tickets.paint(mine);
    for (const seat of mine) this.tickets.tick(seat.seat_id, client.remaining(seat));
    const inHall = [...(room?.seats.values() ?? [])].filter((seat) => hallSeat(seat.seat_id));
    const count = (state) => inHall.filter((seat) => seat.state === state).length;
    $("count-mine").textContent = count("mine");
    $("count-other").textContent = count("other");
    $("count-free").textContent = SEAT_COUNT - count("mine") - count("other");
    $("mine-empty").hidden = mine.length > 0;
    $("release-all").hidden = mine.length < 2;
  }

  /** Say so when a seat of mine ended without my doing, by whatever way the client heard of it. */
  noticeEnd(seat, live) {
    const { seat_id: id, state, pending } = seat;
    if (!live) return;
    if (state === "mine" && !pending) this.mine.set(id, seat);
    else if (!pending && this.mine.has(id)) {
      const early = this.client.remaining(this.mine.get(id)) > 2_000;
      this.mine.delete(id);
      if (this.givingBack.has(id)) return;
      const name = sharedName(seat) ?? seat.client_id;
      if (state === "other") say(t("say.lostTo", { seat: id, name }), "error");
      else if (early) say(t("say.released", { seat: id })); // in another tab of mine, say
      else say(t("say.expired", { seat: id }), "error");
    }
  }

  paintStatus() {
    showStatus(this.client.status, Boolean(this.client.room?.joined));
  }

  tick() {
    const { client } = this;
    for (const seat of client.room?.mine ?? []) {
      const left = client.remaining(seat);
      this.tickets.tick(seat.seat_id, left);
      if (left !== null) this.seats.tick(seat.seat_id, formatRemaining(left), left <= URGENT_MS);
    }
    if (client.status.state !== "connected") this.paintStatus();
  }
}

translatePage();
new Page().start();
