/**
 * The mobile app's own flow, without its screen: it opens its URL with reconnecting-websocket, subscribes, and keeps the
 * newest 500 lines by their timestamps. It never says where it was. Writes what it gets, a JSON object per line.
 *
 *   node app.mjs FOLDER URL [MIN-DELAY-MS [OPEN-MS]]     FOLDER/node_modules has ws and reconnecting-websocket
 *
 * On stdin, a JSON object per line: {"lose": true} takes its socket away, as a phone's system does when it changes networks.
 */

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, url, delay, open] = process.argv.slice(2);
const need = createRequire(`${folder}/`);
const { WebSocket } = need("ws");
const ReconnectingWebSocket = need("reconnecting-websocket");
const MAX_ROWS = 500;

const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
let pings = 0; // by the relay, behind lines; the library answers them by itself
const rows = new Map();
const sockets = [];
class Socket extends WebSocket {
  constructor(...args) {
    super(...args);
    sockets.push(this);
    this.on("ping", () => { pings += 1; });
  }
}

const wait = Number(delay ?? 100);
const socket = new ReconnectingWebSocket(url, [], {
  WebSocket: Socket, minReconnectionDelay: wait, maxReconnectionDelay: 2 * wait, connectionTimeout: Number(open ?? 2000),
});
socket.onopen = () => {
  tell({ open: true });
  socket.send(JSON.stringify({ type: "subscribe", channel: "logs" }));
};
socket.onclose = ({ code, reason }) => tell({ closed: code, reason });
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.type !== "log") return;
  const { timestamp, id, level, source, context } = message;
  tell({ id, timestamp, level, source, n: context.n, context: source === "logrelay" ? context : undefined, message: message.message, pings, known: rows.has(timestamp) });
  rows.set(timestamp, message);
  if (rows.size > MAX_ROWS) rows.delete(rows.keys().next().value);
};
// In Node a socket that is given up while it connects says so as an error, for which the library listens no more.
process.on("uncaughtException", (error) => { if (!/before the connection was established/.test(error.message)) throw error; });
createInterface({ input: process.stdin }).on("line", () => sockets.at(-1)._socket?.resetAndDestroy()).on("close", () => process.exit());
