/** How the client is used, as far as types go. Each line marked as an error has to be one. */

import { SeatError, SeatSelectionClient, type Hold, type Message, type Room, type Seat, type Status } from "@seatws/client";

/* As the guide does */
const guide = new SeatSelectionClient();
guide.setMessageCallback((message) => {
  switch (message.type) {
    case "current_selections":
      message.selections.forEach((selection: { seat_id: string }) => selection.seat_id);
  }
});
guide.setErrorCallback((error) => console.error("Error en WebSocket:", error));
guide.setCloseCallback(() => {});
guide.connect();
guide.joinRoom("funcion_123");
guide.selectSeat("A1", { name: "Usuario Actual", email: "usuario@example.com" });
guide.releaseSeat("A1");
guide.leaveRoom();
guide.ping();
guide.disconnect();

/* And beyond */
const client = new SeatSelectionClient("wss://seats.example.com", {
  clientId: "ann",
  token: async ({ renew }) => (renew ? "new" : "kept"),
  tokenVia: "message",
  requestTimeout: 5_000,
  expiringMs: 30_000,
  credentials: "include",
});
const room: Room = await client.joinRoom("r");
const hold: Hold = await client.selectSeat("A1", { name: "Ann" }, "r");
const holds: Hold[] = await client.selectSeats(["A1", "A2"]);
const milliseconds: number = await client.ping();
const left: number | null = client.remaining(client.seat("A1")) ?? client.remaining(hold);
const mine: readonly Seat[] = client.room?.mine ?? [];
const other: Room | undefined = client.rooms.get("s");
const state: "connecting" | "connected" | "disconnected" = client.status.state;
const stop: () => void = client.on("change", ({ room_id, room: now, seat_ids }) => [room_id, now?.rev, seat_ids.length]);
client.on("status", (status: Status) => status.retryAt?.toFixed());
client.on("error", (error: SeatError) => error.conflicts?.map(({ seat_id }) => seat_id));
client.on("expiring", ({ seat, remaining }) => [seat.user_info["name"], remaining.toFixed()]);
client.on("message", (message: Message) => message.type);
client.setToken(null);
try {
  await client.selectSeat("A1");
} catch (error) {
  if (error instanceof SeatError && error.code === "seat_taken") console.log(error.seat_id);
}
export { holds, left, milliseconds, mine, other, room, state, stop };

// @ts-expect-error
client.status.state = "connected";
// @ts-expect-error
client.room?.seats.set("A1", client.seat("A1"));
// @ts-expect-error
client.on("changed", () => {});
// @ts-expect-error
client.on("expiring", ({ room }) => room);
// @ts-expect-error
new SeatSelectionClient("ws://h", { tokenVia: "query" });
// @ts-expect-error
client._rooms;
