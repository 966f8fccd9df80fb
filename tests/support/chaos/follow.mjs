/**
 * Follows a relay with the npm package of the client, and writes the id of every line that it is given.
 *
 *   node follow.mjs FOLDER URL      FOLDER/node_modules has logrelay-viewer and ws
 *
 * On stdin, a JSON object per line: {"token": ...} gives another token.
 */

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, url, token] = process.argv.slice(2);
const need = createRequire(`${folder}/`);
const { LogRelayClient, inGap } = await import(pathToFileURL(`${folder}/node_modules/logrelay-viewer/logrelay/static/client.js`));

const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const client = new LogRelayClient({
  url,
  token,
  WebSocket: globalThis.WebSocket ?? need("ws").WebSocket,
  tail: 100_000,
  onLines: (lines) => tell({ ids: lines.map((line) => line.id) }),
  onGap: (gap, line) => tell({ gap, covers: inGap(gap, gap.first ?? line.id) }),
  onDenied: (reason) => tell({ denied: reason }),
  onState: (state) => tell({ state }),
});
client.start();
createInterface({ input: process.stdin }).on("line", (line) => client.setToken(JSON.parse(line).token)).on("close", () => process.exit());
