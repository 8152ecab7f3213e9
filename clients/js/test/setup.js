/** What Node 20 lacks of a browser. */

import WebSocket from "ws";

globalThis.WebSocket = WebSocket;
