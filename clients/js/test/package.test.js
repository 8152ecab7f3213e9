/** What is shipped: one file, small, and what its types say. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import ts from "typescript";
import { expect, test } from "vitest";
import * as client from "../src/seat-selection-client.js";
import { Server, unique } from "./server.js";

const FILE = new URL("../src/seat-selection-client.js", import.meta.url);
const source = readFileSync(FILE, "utf8");

/** What the declarations export: classes with their members, and other values. */
function declared() {
  const path = fileURLToPath(new URL("../src/seat-selection-client.d.ts", import.meta.url));
  const tree = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest);
  const classes = {};
  for (const node of tree.statements) {
    if (!ts.isClassDeclaration(node)) continue;
    const members = node.members.filter((member) => member.name).map((member) => [member.name.text, member]);
    classes[node.name.text] = new Map(members);
  }
  return classes;
}

/** What an object has and does not keep to itself. */
function publicNames(object) {
  const names = new Set(Object.getOwnPropertyNames(object));
  for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(object))) names.add(name);
  return [...names].filter((name) => !name.startsWith("_") && name !== "constructor").sort();
}

test("under 6 KiB, gzipped", () => {
  const header = FILE.pathname.split("/").at(-1).length + 1; // the name, which gzip -9 puts there
  expect(gzipSync(source, { level: 9 }).length + header).toBeLessThan(6 * 1024);
});

test("one file without dependencies, readable as it is", () => {
  expect(source).not.toMatch(/\bimport\b|\brequire\(/);
  expect(Math.max(...source.split("\n").map((line) => line.length))).toBeLessThan(140);
});

test("exports what is declared, and nothing else", () => {
  expect(Object.keys(client).sort()).toEqual(Object.keys(declared()).sort());
});

test("the class has the members that are declared, methods as methods, and nothing else", () => {
  const members = declared().SeatSelectionClient;
  const ours = new client.SeatSelectionClient();
  expect(publicNames(ours)).toEqual([...members.keys()].sort());
  for (const [name, member] of members) {
    const type = typeof ours[name];
    expect(type === "function", name).toBe(ts.isMethodDeclaration(member));
    if (type !== "function") continue;
    const required = member.parameters.filter((parameter) => !parameter.questionToken).length;
    expect(ours[name].length, name).toBeGreaterThanOrEqual(required);
    expect(ours[name].length, name).toBeLessThanOrEqual(member.parameters.length);
  }
});

test("an error is an Error, with its code", () => {
  const error = new client.SeatError({ code: "seat_taken", message: "held by someone else", seat_id: "A1" });
  expect(error).toBeInstanceOf(Error);
  expect(String(error)).toBe("SeatError: held by someone else");
  expect(error).toMatchObject({ code: "seat_taken", retryable: false, seat_id: "A1" });
  expect(new client.SeatError({ code: "timeout" }).message).toBe("timeout");
});

test("importing it and making a client touches nothing of a browser", () => {
  const script = `
    const seen = [];
    for (const name of ["window", "document", "addEventListener", "WebSocket", "fetch", "navigator", "location"]) {
      Object.defineProperty(globalThis, name, { get() { seen.push(name); } });
    }
    const { SeatSelectionClient } = await import(${JSON.stringify(FILE.href)});
    const client = new SeatSelectionClient("https://seats.example.com");
    client.on("change", () => {});
    [client.room, client.rooms, client.status, client.seat("A1"), client.serverNow()];
    console.log(JSON.stringify(seen));
  `;
  const output = execFileSync(process.execPath, ["--input-type=module", "--eval", script], { encoding: "utf8" });
  expect(JSON.parse(output)).toEqual([]);
});

test("after disconnect a program ends by itself, by WebSocket and by polling", async () => {
  const server = await new Server().start();
  try {
    for (const hasSockets of [true, false]) {
      const script = `
        ${hasSockets ? 'globalThis.WebSocket = (await import("ws")).default;' : "globalThis.WebSocket = undefined;"}
        const { SeatSelectionClient } = await import(${JSON.stringify(FILE.href)});
        const client = new SeatSelectionClient("${server.url}");
        client.connect();
        await client.joinRoom("${unique("r")}");
        await client.selectSeat("A1");
        console.log(client.status.transport);
        client.disconnect();
      `;
      // Killed if it doesn't end; a poll that waits would keep it 25 s.
      const options = { encoding: "utf8", timeout: 20_000, cwd: fileURLToPath(new URL(".", import.meta.url)) };
      const output = execFileSync(process.execPath, ["--input-type=module", "--eval", script], options);
      expect(output.trim()).toBe(hasSockets ? "websocket" : "polling");
    }
  } finally {
    await server.remove();
  }
});
