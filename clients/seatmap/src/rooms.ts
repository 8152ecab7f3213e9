/** Several maps may show one room over one client: it is joined with the first, left with the last. */
import type { SeatSelectionClient } from "@seatws/client";

const counts = new WeakMap<SeatSelectionClient, Map<string, number>>();

/** @returns leaves the room again; harmless when called twice */
export function enterRoom(client: SeatSelectionClient, roomId: string): () => void {
  const rooms = counts.get(client) ?? new Map<string, number>();
  counts.set(client, rooms);
  const count = rooms.get(roomId) ?? 0;
  rooms.set(roomId, count + 1);
  if (count === 0 || !client.rooms.has(roomId)) client.joinRoom(roomId);
  let inside = true;
  return () => {
    if (!inside) return;
    inside = false;
    const left = (rooms.get(roomId) ?? 1) - 1;
    if (left > 0) return void rooms.set(roomId, left);
    rooms.delete(roomId);
    client.leaveRoom(roomId);
  };
}
