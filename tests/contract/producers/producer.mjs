// A trader in plain JavaScript, written from docs/protocol.md alone and without any package.
//
//     node producer.mjs SOCKET FIRST_LINES LINES
//
// It sends hello and the first lines, then says "ready" on stdout and waits for a line on stdin. While it waits the
// test kills the relay and starts it again. After that it sends the other lines (with a lost frame in the middle) and
// bye, says "done" when everything is acked, and ends. Whenever its connection ends it makes another and sends again
// what was not acked.

import { randomBytes } from "node:crypto";
import { createConnection } from "node:net";
import { hostname } from "node:os";
import { createInterface } from "node:readline";

const RETRY_MS = 50;
const LEVELS = ["debug", "info", "warning", "error", "critical"];
const [path, firstLines, lines] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];

// --- msgpack: as much of it as a trader needs ---------------------------------------------------------------------

function uint(size, value) {
  const made = Buffer.alloc(size);
  if (size === 8) made.writeBigUInt64BE(BigInt(value));
  else made.writeUIntBE(Number(value), 0, size);
  return made;
}

function head(value, fix, fixMost, codes) {
  if (fix !== null && value <= fixMost) return Buffer.from([fix | value]);
  const [code, size] = codes.find(([, bytes]) => value < 2 ** (8 * bytes));
  return Buffer.concat([Buffer.from([code]), uint(size, value)]);
}

/** BigInt is a 64-bit integer, a number with a fraction or beyond 2^31 a double. */
function pack(value) {
  if (value === null || value === undefined) return Buffer.from([0xc0]);
  if (typeof value === "boolean") return Buffer.from([value ? 0xc3 : 0xc2]);
  if (typeof value === "bigint") {
    const made = Buffer.alloc(9);
    made[0] = value < 0n ? 0xd3 : 0xcf;
    if (value < 0n) made.writeBigInt64BE(value, 1);
    else made.writeBigUInt64BE(value, 1);
    return made;
  }
  if (typeof value === "number") {
    if (Number.isInteger(value) && value >= 0 && value < 128) return Buffer.from([value]);
    const made = Buffer.alloc(Number.isInteger(value) && Math.abs(value) < 2 ** 31 ? 5 : 9);
    if (made.length === 5) {
      made[0] = 0xd2;
      made.writeInt32BE(value, 1);
    } else {
      made[0] = 0xcb;
      made.writeDoubleBE(value, 1);
    }
    return made;
  }
  if (typeof value === "string") {
    const text = Buffer.from(value, "utf8");
    return Buffer.concat([head(text.length, 0xa0, 31, [[0xd9, 1], [0xda, 2], [0xdb, 4]]), text]);
  }
  if (Buffer.isBuffer(value)) {
    return Buffer.concat([head(value.length, null, 0, [[0xc4, 1], [0xc5, 2], [0xc6, 4]]), value]);
  }
  if (Array.isArray(value)) {
    return Buffer.concat([head(value.length, 0x90, 15, [[0xdc, 2], [0xdd, 4]]), ...value.map(pack)]);
  }
  const entries = Object.entries(value);
  return Buffer.concat([head(entries.length, 0x80, 15, [[0xde, 2], [0xdf, 4]]), ...entries.flat().map(pack)]);
}

/** Reads one value at `at`; returns [value, end], or null where the buffer ends before it. Integers are BigInts. */
function unpack(data, at) {
  if (at >= data.length) return null;
  const code = data[at];
  const fixed = { 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8 }[code];
  const length = { 0xd9: 1, 0xda: 2, 0xdb: 4 }[code];
  if (code < 0x80) return [BigInt(code), at + 1];
  if (fixed !== undefined) {
    if (at + 1 + fixed > data.length) return null;
    return [fixed === 8 ? data.readBigUInt64BE(at + 1) : BigInt(data.readUIntBE(at + 1, fixed)), at + 1 + fixed];
  }
  if (length !== undefined || (code & 0xe0) === 0xa0) {
    const start = at + 1 + (length ?? 0);
    if (start > data.length) return null;
    const size = length === undefined ? code & 0x1f : data.readUIntBE(at + 1, length);
    return start + size > data.length ? null : [data.toString("utf8", start, start + size), start + size];
  }
  const isMap = (code & 0xf0) === 0x80;
  if (!isMap && (code & 0xf0) !== 0x90) throw new Error(`the relay sent a 0x${code.toString(16)}`);
  const items = [];
  let end = at + 1;
  for (let left = (code & 0x0f) * (isMap ? 2 : 1); left > 0; left -= 1) {
    const item = unpack(data, end);
    if (item === null) return null;
    items.push(item[0]);
    end = item[1];
  }
  if (!isMap) return [items, end];
  return [Object.fromEntries(items.map((item, n) => [item, items[n + 1]]).filter((_, n) => n % 2 === 0)), end];
}

// --- the trader ---------------------------------------------------------------------------------------------------

const hello = pack([
  0,
  {
    protocol: 1,
    run: randomBytes(16),
    app: "node_bot",
    host: hostname(),
    pid: process.pid,
    started_ns: BigInt(Date.now()) * 1_000_000n,
  },
]);
const unacked = []; // {last, frame}, in order
let acked = 0n;
let seq = 0n;
let socket = null;
let ended = false;

function add(last, frame) {
  unacked.push({ last, frame });
  socket?.write(frame);
}

function log(level, event) {
  seq += 1n;
  add(seq, pack([1, seq, BigInt(Date.now()) * 1_000_000n, level, event]));
}

function lost(count, cause) {
  const first = seq + 1n;
  seq += BigInt(count);
  add(seq, pack([2, first, seq, BigInt(count), cause]));
}

function onAcked(upTo) {
  if (upTo > acked) acked = upTo;
  while (unacked.length > 0 && unacked[0].last <= acked) unacked.shift();
  if (ended && acked >= seq) {
    console.log("done");
    process.exit(0);
  }
}

function connect() {
  const made = createConnection(path);
  let received = Buffer.alloc(0);
  made.on("connect", () => {
    socket = made;
    made.write(Buffer.concat([hello, ...unacked.map((line) => line.frame), ...(ended ? [pack([3, seq])] : [])]));
  });
  made.on("data", (data) => {
    received = Buffer.concat([received, data]);
    for (let found = unpack(received, 0); found !== null; found = unpack(received, 0)) {
      received = received.subarray(found[1]);
      const [kind, value, reason] = found[0];
      if (kind === 0n) onAcked(value.acked);
      else if (kind === 1n) onAcked(value);
      else throw new Error(`the relay does not want this: ${value} ${reason ?? ""}`);
    }
  });
  made.on("error", () => {});
  made.on("close", () => {
    socket = null;
    setTimeout(connect, RETRY_MS);
  });
}

function logTo(last) {
  while (seq < BigInt(last)) {
    const n = Number(seq) + 1;
    const extra = { n, price: 187.25, huge: 2n ** 63n - 1n, raw: Buffer.from([0, 255]), legs: [{ qty: -70_000 }, null] };
    log(LEVELS[n % LEVELS.length], { event: `line ${n} \u00e9\u{1F600}`, logger: "node.bot", ...extra });
  }
}

connect();
logTo(firstLines);
console.log("ready");
createInterface({ input: process.stdin }).once("line", () => {
  logTo(firstLines + 10);
  lost(5, "overflow");
  logTo(lines);
  ended = true;
  socket?.write(pack([3, seq]));
});
