// The client of a seatws server. Read seat-selection-client.d.ts, and README.md's "Inside".

const now = () => performance.now();

export class SeatError extends Error {
  constructor(facts) {
    super(facts.message || facts.code);
    Object.assign(this, { name: "SeatError", retryable: false }, facts);
  }
}

export class SeatSelectionClient {
  ws = null;
  currentRoom = null;
  latency = null;
  __v_skip = true; // for Vue
  _listeners = {};
  _timers = new Map();
  _rooms = new Map();
  _asked = new Map();
  _count = 0;
  _offset = Date.now() - now();

  constructor(serverUrl = "ws://localhost:8001", options = {}) {
    this.serverUrl = serverUrl.replace(/^http/, "ws").replace(/\/+$/, "");
    this.clientId = options.clientId ?? `user_${Date.now()}${Math.random()}`;
    if (!/^(?!\.\.?$)[\w.:@-]{1,64}$/.test(this.clientId)) throw new TypeError("clientId: not legal");
    this._options = { tokenVia: "subprotocol", requestTimeout: 10_000, expiringMs: 60_000, ...options };
    this._token = options.token;
    this._update(null);
  }

  get room() {
    return this.rooms.get(this.currentRoom) ?? null;
  }

  get rooms() {
    return new Map([...this._rooms].map(([id, room]) => [id, this._view(room)]));
  }

  connect() {
    if (this._wanted) return this._wake();
    this._wanted = true;
    this._attempt = this._failed = this._refused = this._notBefore = 0;
    this._hook("addEventListener");
    this._open();
  }

  disconnect() {
    this._end(null);
  }

  joinRoom(room_id) {
    const room = { room_id, joined: false, rev: null, waiting: [], warned: {}, holds: new Map(), wishes: new Map(), shown: new Map() };
    if (!this._rooms.has(room_id)) this._rooms.set(room_id, room);
    this.currentRoom = room_id;
    return this._ask({ type: "join_room", room_id });
  }

  leaveRoom(room_id = this.currentRoom) {
    const room = this._rooms.get(room_id);
    if (room) this._forget(room, { code: "aborted" });
    return room && this._link ? this._ask({ type: "leave_room", room_id }) : Promise.resolve();
  }

  selectSeat(seat_id, user_info, room_id = this.currentRoom) {
    return this._ask({ type: "select_seat", room_id, seat_id, user_info: user_info || {} }, [seat_id]);
  }

  selectSeats(seat_ids, user_info, room_id = this.currentRoom) {
    return this._ask({ type: "select_seats", room_id, seat_ids, user_info: user_info || {} }, seat_ids);
  }

  releaseSeat(seat_id, room_id = this.currentRoom) {
    return this._ask({ type: "release_seat", room_id, seat_id }, [seat_id]);
  }

  ping() {
    return this._ask({ type: "ping" });
  }

  seat(seat_id, room_id = this.currentRoom) {
    return this._rooms.get(room_id)?.shown.get(seat_id) ?? this._look(seat_id);
  }

  serverNow() {
    return now() + this._offset;
  }

  remaining({ expires_at }) {
    return expires_at && Math.max(0, Date.parse(expires_at) - this.serverNow());
  }

  setToken(token) {
    this._token = token;
    this._kept = null;
    this._signIn();
  }

  on(type, listener) {
    (this._listeners[type] ??= new Set()).add(listener);
    return () => this.off(type, listener);
  }

  off(type, listener) {
    this._listeners[type]?.delete(listener);
  }

  setMessageCallback(callback) {
    this._onmessage = callback;
  }

  setErrorCallback(callback) {
    this._onfail = callback;
  }

  setCloseCallback(callback) {
    this._onclose = callback;
  }

  _emit(type, event) {
    for (const listener of [this[`_on${type}`], ...(this._listeners[type] ?? [])]) {
      try {
        listener?.(event);
      } catch (error) {
        console.error(error);
      }
    }
  }

  _fail(facts) {
    const error = new SeatError(facts);
    this._emit("fail", error);
    this._emit("error", error);
  }

  _update(code = this.status.code) {
    const link = this._link;
    const status = {
      state: link ? "connected" : this._wanted ? "connecting" : "disconnected",
      transport: link ? (link === this.ws ? "websocket" : "polling") : null,
      retryAt: !link && this._timers.has("retry") ? this._retryAt : null,
      code,
    };
    if (JSON.stringify(status) === JSON.stringify(this.status)) return;
    this.status = status;
    this._emit("status", status);
  }

  // Without `run`, stops the timer.
  _after(name, ms, run) {
    clearTimeout(this._timers.get(name));
    this._timers.delete(name);
    if (!run) return;
    const fire = () => {
      this._timers.delete(name);
      run();
    };
    this._timers.set(name, setTimeout(fire, ms));
  }

  _ask(frame, seats = []) {
    const id = (frame.request_id = String(++this._count));
    const { type: request, room_id, seat_id, user_info } = frame;
    const room = this._rooms.get(room_id);
    const hold = user_info && { client_id: this.clientId, user_info };
    const asked = { frame, hold, left: new Set(seats), holds: [] };
    const promise = new Promise((resolve, reject) => {
      asked.end = (result) => {
        if (!this._asked.delete(id)) return;
        this._after(id);
        for (const seat of asked.left) if (room?.wishes.get(seat) === asked) room.wishes.delete(seat);
        if (asked.left.size && room) this._touch(room, asked.left);
        if (!result?.code) return resolve(result);
        const error = new SeatError({ request, room_id, seat_id, ...result });
        reject(error);
        if (seats.length && result.code !== "aborted") this._emit("error", error);
      };
    });
    promise.catch(() => {}); // the guide's code ignores it
    this._asked.set(id, asked);
    this._after(id, this._options.requestTimeout, () => asked.end({ code: "timeout", retryable: true }));
    for (const seat of seats) room?.wishes.set(seat, asked);
    if (room) this._touch(room, seats);
    if (!seats.length) room?.waiting.push(asked);
    this._transmit(asked);
    return promise;
  }

  _transmit(asked) {
    const { type, room_id } = asked.frame;
    const room = this._rooms.get(room_id);
    if (type === "join_room") return this._timers.has(`join ${room_id}`) || this._join(room);
    if (type === "leave_room" && room) return asked.end();
    asked.again = asked.at;
    asked.at = this._link && now();
    this._send(asked.frame);
  }

  _send(frame) {
    if (!this._link) return;
    this._emit("sent", frame.token ? { ...frame, token: "…" } : frame);
    this._link?.send(JSON.stringify(frame));
  }

  _resend() {
    for (const room of this._rooms.values()) if (!room.synced) this._join(room);
    for (const asked of [...this._asked.values()]) this._transmit(asked);
  }

  // Until the map comes.
  _join(room) {
    const { room_id } = room;
    this._after(`join ${room_id}`, this._options.requestTimeout, () => this._join(room));
    this._send(room.waiting[0]?.frame ?? { type: "join_room", room_id });
  }

  _hook(method) {
    globalThis[method]?.("online", this._wake);
    globalThis.document?.[method]("visibilitychange", this._wake);
  }

  async _open() {
    this._after("retry");
    this._update();
    const run = (this._run = {});
    const { tokenVia } = this._options;
    this._goodbye = this._heardAt = this._openedAt = this.ws = null;
    let ws, token;
    try {
      this._last = token = await this._askToken();
      if (run !== this._run) return;
      this._after("retry");
      const protocols = token && tokenVia === "subprotocol" ? ["seatws.v1", `bearer.${token}`] : [];
      ws = this.ws = new WebSocket(`${this.serverUrl}/ws/${this.clientId}`, protocols);
    } catch {
      if (run === this._run) this._lost(null, 1006);
      return;
    }
    this._after("open", 12_000, () => this._lost(ws, 1006));
    ws.onopen = () => {
      this._openedAt = now();
      if (token && tokenVia === "message") ws.send(JSON.stringify({ type: "auth", token }));
      if (this._link) ws.send('{"type":"ping"}');
      else this._opened(ws);
    };
    ws.onmessage = ({ data }) => {
      if (ws !== this.ws) return;
      const frame = JSON.parse(data);
      this._after("open");
      this._heardAt = now();
      this._failed = 0;
      if (this._link !== ws && frame.type !== "goodbye") this._opened(ws);
      this._receive(frame);
    };
    ws.onerror = () => {};
    ws.onclose = ({ code }) => this._lost(ws, code);
  }

  _opened(link) {
    this._link = link;
    this._outage = false;
    if (link === this.ws) {
      this._polling?.close();
      this._polling = null;
    }
    for (const room of this._rooms.values()) room.synced = false;
    this._resend();
    this._beat();
    this._update();
  }

  _lost(link, code) {
    const isSocket = link === this.ws;
    if (!isSocket && link !== this._polling) return;
    const { code: meant = code, reconnect, retry_after_ms: after = 0 } = (isSocket && this._goodbye) || {};
    const was = link && link === this._link;
    link?.close();
    this._after("open");
    if (isSocket) {
      this.ws = null;
      if (!this._heardAt) this._failed += 1;
      if (this._openedAt && now() - this._openedAt > 5_000) this._attempt = 0;
    } else {
      this._polling = null;
      if (was) this._attempt = 0;
    }
    if (was) this._down();
    if (!this._wanted) return;
    if (meant === 4401 && this._kept && ++this._refused < 3) this._kept = null;
    else if (reconnect === false || /44(00|01|03)/.test(meant)) return this._end(meant, { code: "closed", close_code: meant });
    if (!this.ws && (isSocket || was)) {
      this._notBefore = now() + Math.min(after, 600_000);
      this._retryAt = this._notBefore + Math.random() * Math.min(15_000, 500 * 2 ** this._attempt++);
      this._after("retry", this._retryAt - now(), () => this._open());
    }
    const hasFailed = this._failed > 2;
    if (hasFailed && (isSocket || meant === 4401)) this._polling ??= new Polling(this);
    this._update(meant);
    if (!hasFailed || this._polling || was || this._outage) return;
    this._outage = true;
    this._fail({ code: "unreachable", retryable: true });
  }

  _wake = () => {
    if (!this._timers.has("retry")) this._beat();
    else if (now() >= this._notBefore) this._open();
  };

  _beat() {
    const { ws } = this;
    if (!ws || ws !== this._link) return;
    const at = now();
    this._after("beat", 25_000, () => this._beat());
    this.ping().catch(() => {
      if (!(this._heardAt > at)) this._lost(ws, 4408);
    });
  }

  _down() {
    this._link = null;
    for (const room of this._rooms.values()) {
      if (!room.joined) continue;
      room.joined = room.synced = false;
      this._touch(room, []);
    }
  }

  _end(code, facts) {
    const { ws, _polling, _wanted } = this;
    this._wanted = this._outage = false;
    this._run = this.ws = this._polling = this._kept = null;
    ws?.close();
    _polling?.close();
    this._hook("removeEventListener");
    for (const asked of [...this._asked.values()]) asked.end({ code: "aborted" });
    for (const name of [...this._timers.keys()]) this._after(name);
    this._down();
    this._update(code);
    if (facts) this._fail(facts);
    if (_wanted) this._emit("close");
  }

  _askToken() {
    const ask = this._token;
    if (typeof ask !== "function") return Promise.resolve(ask);
    return (this._kept ??= new Promise((resolve, reject) => {
      this._after("token", this._options.requestTimeout, reject);
      Promise.resolve({ renew: !!this._last }).then(ask).then(resolve, reject);
    }).catch((cause) => {
      this._kept = null;
      this._emit("error", new SeatError({ code: "token_failed", cause, retryable: true }));
      throw cause;
    }));
  }

  async _signIn() {
    const link = this._link;
    const token = await this._askToken().catch(() => {});
    if (!token || token === this._last || link !== this._link) return;
    this._last = token;
    this._send({ type: "auth", token });
  }

  _forget(room, result) {
    const { room_id, shown } = room;
    this._rooms.delete(room_id);
    this._after(`join ${room_id}`);
    if (this.currentRoom === room_id) this.currentRoom = null;
    this._emit("change", { room_id, room: null, seat_ids: [...shown.keys()] });
    for (const asked of room.waiting.splice(0)) asked.end(result);
  }

  _view(room) {
    const { room_id, joined, rev, shown } = room;
    const mine = [...shown.values()].filter((seat) => seat.state === "mine");
    return (room.view ??= { room_id, joined, rev, seats: new Map(shown), mine });
  }

  _look(seat_id, hold, wish) {
    const isOther = hold && hold.client_id !== this.clientId;
    const seen = wish && !isOther ? wish.hold && (hold ?? wish.hold) : hold;
    const { client_id = null, user_info = {}, expires_at = null } = seen ?? {};
    return { seat_id, state: isOther ? "other" : seen ? "mine" : "free", pending: !!wish, client_id, user_info, expires_at };
  }

  _touch(room, seats) {
    const { room_id, shown, warned } = room;
    const seat_ids = [...seats].filter((id) => {
      const seat = this._look(id, room.holds.get(id), room.wishes.get(id));
      const { state, expires_at } = seat;
      const warn = () => {
        if (warned[id] === expires_at) return;
        warned[id] = expires_at;
        this._emit("expiring", { room_id, seat, remaining: this.remaining(seat) });
      };
      const ms = this.remaining(seat) - this._options.expiringMs;
      this._after(`warn ${room_id} ${id}`, ms, state === "mine" && expires_at && this._wanted && warn);
      if (state === "free" && !seat.pending) return shown.delete(id);
      return JSON.stringify(seat) !== JSON.stringify(shown.get(id)) && shown.set(id, seat);
    });
    if (this._rooms.get(room_id) !== room) return;
    room.view = null;
    this._emit("change", { room_id, room: this._view(room), seat_ids });
  }

  _clock(time, roundTrip, rough) {
    const offset = Date.parse(time) + roundTrip / 2 - now();
    if (offset && !(rough && Math.abs(offset - this._offset) < 2_000)) this._offset = offset;
  }

  _receive(frame) {
    const { type } = frame;
    const asked = this._asked.get(frame.request_id);
    const room = this._rooms.get((asked?.frame ?? frame).room_id);
    if (type === "error") this._error(frame, room, asked);
    else if (type === "goodbye") this._goodbye = frame;
    else if (type === "auth_ok") this._refused = 0;
    else if (type === "auth_expiring") {
      this._kept = null;
      this._signIn();
    } else if (type === "room_left") {
      if (frame.reason && room) this._error({ ...frame, code: "forbidden", request: "join_room" }, room);
      asked?.end();
    } else if (type === "current_selections") {
      this._clock(frame.server_time, 0, true);
      if (room) this._replace(room, frame);
    } else if (type === "pong" && asked) {
      this.latency = now() - asked.at;
      if (this._link === this.ws) this._clock(frame.timestamp, this.latency);
      asked.end(this.latency);
    } else if (/^seat_/.test(type)) this._change(frame, room, asked);
    this._emit("message", frame);
  }

  _replace(room, { selections, rev = null }) {
    const { room_id, shown } = room;
    const holds = new Map(selections.map((each) => [each.seat_id, each]));
    Object.assign(room, { holds, rev, joined: true, synced: true });
    this._after(`join ${room_id}`);
    this._touch(room, new Set([...shown.keys(), ...holds.keys()]));
    for (const asked of room.waiting.splice(0)) asked.end(this._view(room));
  }

  _change(frame, room, asked) {
    const { seat_id, rev } = frame;
    const user_info = asked?.frame.user_info ?? room?.holds.get(seat_id)?.user_info;
    const hold = { user_info, ...frame };
    asked?.left.delete(seat_id);
    asked?.holds.push(hold);
    if (room) {
      if (room.wishes.get(seat_id) === asked) room.wishes.delete(seat_id);
      if (!room.synced || !(rev <= room.rev)) {
        // Not the next one.
        if (room.synced && rev !== room.rev + 1) this._join(room);
        room.rev = rev ?? room.rev;
        if (frame.type === "seat_selected") room.holds.set(seat_id, hold);
        else room.holds.delete(seat_id);
      }
      this._touch(room, [seat_id]);
    }
    if (asked && !asked.left.size) asked.end(asked.frame.seat_ids ? asked.holds : hold);
  }

  _error(frame, room, asked) {
    const { code, request, retryable, retry_after_ms } = frame;
    const isJoin = request === "join_room" && room;
    if (code === "rate_limited" && !isJoin) this._after("resend", retry_after_ms || 1_000, () => this._resend());
    else if (code === "not_holder" && asked?.again) asked.end(); // the first did it
    else if (isJoin && retryable) {
      this._after(`join ${room.room_id}`, retry_after_ms ?? 500 + 2_000 * Math.random(), () => this._join(room));
    } else if (asked && !isJoin) asked.end(frame);
    else {
      this._emit("error", new SeatError(frame));
      if (isJoin) this._forget(room, frame);
    }
  }
}

// Does by HTTP what a WebSocket would, and makes the frames that it would bring.
class Polling {
  constructor(client) {
    this.client = client;
    this.abort = new AbortController();
    this.rooms = new Map();
    this.call("GET", "health").then(() => client._opened(this));
  }

  close() {
    this.rooms.clear();
    this.abort.abort();
  }

  // Never settles where there is no answer.
  async call(method, path, body, tag) {
    const { client } = this;
    const { credentials, requestTimeout } = client._options;
    const name = method + path;
    try {
      const token = await client._askToken();
      const headers = { "If-None-Match": tag ?? "", ...(token && { Authorization: `Bearer ${token}` }) };
      client._after(name, 25_000 + requestTimeout, () => client._lost(this, 1006));
      const url = `${client.serverUrl.replace("ws", "http")}/${path}`;
      const { signal } = this.abort;
      const answer = await fetch(url, { method, headers, body, signal, credentials, cache: "no-store" });
      const { status } = answer;
      const json = status === 204 || status === 304 ? {} : await answer.json();
      client._clock(answer.headers.get("Date"), 0, true);
      if (status === 401) client._lost(this, 4401);
      else if (client._polling === this) return { status, json, tag: answer.headers.get("ETag") };
    } catch {
      client._lost(this, 1006);
    } finally {
      client._after(name);
    }
    return new Promise(() => {});
  }

  path(room_id, ...seat) {
    return `${["room", room_id, "selections", ...seat].map(encodeURIComponent).join("/")}?client_id=${this.client.clientId}`;
  }

  tell(frame, type, facts) {
    this.client._receive({ ...frame, client_id: this.client.clientId, ...facts, type });
  }

  refuse(frame, { status, json }) {
    this.tell(frame, "error", { ...json, message: json.detail, request: frame.type, retryable: status > 428 });
  }

  async send(text) {
    const frame = JSON.parse(text);
    const { type, room_id } = frame;
    if (type === "join_room") this.follow(frame);
    else if (type === "leave_room") {
      this.rooms.delete(room_id);
      this.tell(frame, "room_left");
    } else if (type === "ping") {
      await this.call("GET", "health");
      this.tell(frame, "pong", { timestamp: new Date(this.client.serverNow()).toISOString() });
    } else if (type !== "auth") this.write(frame);
  }

  async write(frame) {
    const { room_id, seat_id, seat_ids = [seat_id], user_info } = frame;
    const drop = (seat) => this.call("DELETE", this.path(room_id, seat));
    const body = JSON.stringify({ client_id: this.client.clientId, user_info });
    const done = [];
    for (const seat of seat_ids) {
      const answer = await (user_info ? this.call("PUT", this.path(room_id, seat), body) : drop(seat));
      const { status, json } = answer;
      if (status >= 400) {
        for (const each of done) if (each.status === 201) await drop(each.seat_id);
        return this.refuse(frame, answer);
      }
      if (status === 201) this.client._clock(json.timestamp, 0);
      done.push({ seat_id: seat, ...json, status });
    }
    for (const each of done) this.tell(frame, user_info ? "seat_selected" : "seat_released", each);
  }

  async follow(frame) {
    const { rooms } = this;
    const { room_id } = frame;
    const mine = {};
    rooms.set(room_id, mine);
    let tag;
    while (rooms.get(room_id) === mine) {
      const path = `${this.path(room_id)}&wait=${rooms.size < 4 ? 25 : 2}`;
      const answer = await this.call("GET", path, undefined, tag);
      if (rooms.get(room_id) !== mine) return;
      const { status, json } = answer;
      if (status < 400) this.client._refused = 0;
      if (status === 200) {
        if (!tag) this.tell(frame, "room_joined");
        this.tell(frame, "current_selections", json);
        tag = answer.tag;
      } else if (status !== 304 && !(status > 428 && tag)) {
        rooms.delete(room_id);
        return this.refuse(frame, answer);
      }
      await new Promise((resolve) => this.client._after(`pause ${room_id}`, status > 428 ? 2_000 : 200, resolve));
    }
  }
}
