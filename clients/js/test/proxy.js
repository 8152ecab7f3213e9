/** What stands between a client and its server, and can be told to get in the way. */

import net from "node:net";
import { once } from "node:events";

export class Proxy {
  #server = null;
  #pairs = new Set();
  /** How many WebSockets were asked for, whatever became of them. */
  handshakes = 0;
  /** What becomes of WebSockets: passed on, refused, or accepted with nothing let through after that. */
  webSockets = "pass";
  /** Whether new connections are refused. */
  isDown = false;

  constructor(port) {
    this.target = port;
  }

  async start() {
    this.#server = net.createServer((client) => this.#connected(client)).listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  get url() {
    return `ws://127.0.0.1:${this.#server.address().port}`;
  }

  /** End all connections at once, without a word. */
  cut() {
    for (const { client, server } of this.#pairs) {
      client.resetAndDestroy();
      server.destroy();
    }
  }

  /** Let nothing through any more on the connections that stand, and leave them open. */
  freeze() {
    for (const pair of this.#pairs) pair.isFrozen = true;
  }

  /** Let nothing through to the clients that are connected; what they send still arrives. */
  mute() {
    for (const pair of this.#pairs) pair.isMute = true;
  }

  async stop() {
    this.cut();
    this.#server.close();
  }

  #connected(client) {
    client.on("error", () => {});
    if (this.isDown) {
      client.resetAndDestroy();
      return;
    }
    const server = net.connect(this.target, "127.0.0.1");
    const pair = { client, server, isFrozen: false, isMute: false, isSwallowing: false };
    this.#pairs.add(pair);
    client.on("data", (data) => {
      if (/^GET \/ws\//.test(data.toString("latin1"))) {
        this.handshakes += 1;
        if (this.webSockets === "refuse") {
          client.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
          return;
        }
        pair.isSwallowing = this.webSockets === "swallow";
      }
      if (!pair.isFrozen) server.write(data);
    });
    server.on("data", (data) => {
      if (pair.isFrozen || pair.isMute) return;
      const head = pair.isSwallowing ? data.indexOf("\r\n\r\n") + 4 : data.length;
      client.write(data.subarray(0, head));
      if (pair.isSwallowing) pair.isFrozen = true;
    });
    server.on("error", () => {});
    client.on("close", () => server.destroy());
    server.on("close", () => {
      this.#pairs.delete(pair);
      if (!pair.isFrozen) client.destroy();
    });
  }
}
