/** Real servers for the tests: `run.py` with its embedded Redis, each in a directory of its own. */

import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const PYTHON = process.env.SEATWS_PYTHON ?? "python3";
const SECRET = "a-secret-of-the-tests-and-of-nothing-else";

/** Longer than anything here takes on a slow machine; a test that needs it hangs. */
export const LIMIT_MS = 30_000;

let names = 0;
/** A name that no other test uses: tests of a file share one server. */
export const unique = (prefix) => `${prefix}_${process.pid}_${names++}`;

export class Server {
  #process = null;
  #log = "";
  port = 0;

  /**
   * @param {Record<string, string>} settings environment, such as SEATWS_HOLDS__SECONDS
   * @param {{signIn?: boolean}} options `signIn`: clients need tokens, made with `token`
   */
  constructor(settings = {}, { signIn = false } = {}) {
    this.directory = mkdtempSync(join(tmpdir(), "seatws-"));
    this.conf = join(this.directory, "conf");
    cpSync(join(ROOT, "conf"), this.conf, { recursive: true, dereference: true });
    if (signIn) {
      writeFileSync(
        join(this.conf, "plugins.toml"),
        `[[plugin]]
use = "plugins.jwt_auth"
issuer = "*"
audience = "*"
leeway_seconds = 0
warn_seconds = ${signIn.warnSeconds ?? 60}
[[plugin.keys]]
algorithms = ["HS256"]
secret_env = "TEST_SECRET"
`,
      );
    }
    this.environment = {
      ...process.env,
      SEATWS_SERVER__DRAIN_SECONDS: "0",
      SEATWS_LIMITS__FAILED_SIGN_INS_PER_MINUTE: "0",
      PYTHONUNBUFFERED: "1",
      TEST_SECRET: SECRET,
      ...settings,
    };
  }

  get url() {
    return `ws://127.0.0.1:${this.port}`;
  }

  get isRunning() {
    return this.#process !== null && this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Start it, on the port that it had, and wait until it listens. */
  async start() {
    const from = this.#log.length;
    const args = [join(ROOT, "run.py"), "--conf", this.conf, "--port", String(this.port)];
    this.#process = spawn(PYTHON, args, { cwd: this.directory, env: this.environment });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.on("data", (data) => (this.#log += data));
    }
    let problem = null;
    this.#process.on("error", (error) => (problem = error));
    await until(() => {
      if (problem || !this.isRunning) throw problem ?? new Error(this.#log);
      return /listens on[^]*Plugins:/.test(this.#log.slice(from));
    });
    this.port = Number(/listens on http:\/\/[^:]+:(\d+)/.exec(this.#log.slice(from))[1]);
    return this;
  }

  /** End it at once, or as an operator would. */
  async stop(signal = "SIGTERM") {
    const running = this.#process;
    if (!this.isRunning) return;
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill(signal);
    await ended;
  }

  /** End it for good. Whatever the tests did, it may not have failed inside. */
  async remove() {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
    if (this.#log.includes("Traceback")) throw new Error(this.#log);
  }
}

/** A signed token for a client id. */
export function token(clientId, seconds = 3600, claims = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: clientId, exp, ...claims })}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}

/** Look again and again until something is so. */
export async function until(isSo, what = isSo) {
  const end = performance.now() + LIMIT_MS;
  for (;;) {
    const value = await isSo();
    if (value) return value;
    if (performance.now() > end) throw new Error(`it did not come to be so: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
