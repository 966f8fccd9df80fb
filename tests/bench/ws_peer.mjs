// A small relay on `ws` for Node.js: lines of ready JSON from a Unix socket, one ws.send() per viewer and line.
// No journal, no acks, no replay, no filters, and no JSON to make. usage: node ws_peer.mjs WS_FOLDER SOCKET PORT deflate|plain
import net from "node:net";
import { createRequire } from "node:module";

const [folder, path, port, compression] = process.argv.slice(2);
const { WebSocketServer, WebSocket } = createRequire(folder + "/")("ws");

// threshold 0: its default leaves messages under 1 KiB uncompressed, and every log line is smaller than that
const perMessageDeflate = compression === "deflate" ? { threshold: 0 } : false;
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate });
server.on("connection", (viewer) => viewer.on("error", () => viewer.terminate()));

function say(line) {
  for (const viewer of server.clients) {
    if (viewer.readyState === WebSocket.OPEN) viewer.send(line);
  }
}

net.createServer((trader) => {
  let rest = "";
  trader.setEncoding("utf8");
  trader.on("error", () => trader.destroy());
  trader.on("data", (data) => {
    const lines = (rest + data).split("\n");
    rest = lines.pop();
    for (const line of lines) say(line);
  });
}).listen(path);
