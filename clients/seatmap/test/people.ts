/** Other visitors, with connections of their own. */
import { SeatSelectionClient } from "@seatws/client";
import { onTestFinished } from "vitest";
import { unique } from "../../js/test/server.js";

/** Somebody in the room, connected before it returns, and gone after the test. */
export async function visitor(url: string, roomId: string): Promise<SeatSelectionClient> {
  const client = new SeatSelectionClient(url, { clientId: unique("visitor") });
  onTestFinished(() => client.disconnect());
  client.connect();
  await client.joinRoom(roomId);
  return client;
}

/** What the server says about itself. */
export async function stats(url: string): Promise<{ active_connections: number; rooms: Record<string, { connections: number }> }> {
  return (await fetch(`${url.replace("ws", "http")}/stats`)).json();
}
