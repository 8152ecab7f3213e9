/** A WebSocket of which the test is the other end: for rules that hang on the clock alone. */

export class FakeSocket {
  /** All that were made, in order. */
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }

  readyState = 0;
  sent = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeSocket.all.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.readyState = 3;
  }

  /* The server's side */

  open() {
    this.readyState = 1;
    this.onopen();
    return this;
  }

  say(...frames) {
    for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) });
    return this;
  }

  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  /** Frames of a type that were sent. */
  of(type) {
    return this.sent.filter((frame) => frame.type === type);
  }

  /** Answer the last ping, with the server's time. */
  pong(timestamp = new Date().toISOString()) {
    return this.say({ type: "pong", timestamp, request_id: this.of("ping").at(-1).request_id });
  }

  /** The map of a room. */
  map(room_id, rev, selections = [], server_time = new Date().toISOString()) {
    return this.say({ type: "current_selections", room_id, rev, selections, server_time });
  }
}
