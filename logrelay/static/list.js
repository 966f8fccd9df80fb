/**
 * The web viewer: shows the stream of client.js and says truthfully how fresh it is.
 *
 * Owns: the page. It must not know sockets. Log lines are hostile input: they reach the page through
 * textContent only. This is where a line's journey ends.
 */

import { LogRelayClient, splitId } from "./client.js";

/** Lines kept in the page: what a phone scrolls smoothly. Older ones come back from the relay's journal. */
const MAX_LINES = 5_000;
/** Lines to begin with, and after an absence of more than MAX_LINES. */
const TAIL = 500;
/** Older lines asked for at once: a few screens. */
const HISTORY = 200;
/** Rows built per animation frame; a burst is spread over frames instead of stopping the page. */
const ROWS_PER_FRAME = 250;
/** Rows that the browser lays out, skips and drops together; single rows would cost it too much in a burst. */
const CHUNK = 100;
/** Pixels from the bottom that still count as being there. */
const AT_BOTTOM = 24;
/** Pixels from the top at which older lines are asked for. */
const NEAR_TOP = 400;
/** Milliseconds after the last keystroke before the relay is asked. */
const TYPING = 300;
/** Characters of a context value in a closed row; the open row has all of it. */
const VALUE_SHOWN = 120;
const TRACEBACKS = new Set(["exception", "traceback", "exc_info", "stack"]);
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"];
const TRADER_STATES = new Set(["connected", "quiet", "closed", "crashed", "gone"]);
const ENDED = new Set(["closed", "crashed", "gone"]);
/** Traders shown; more would push everything else off a phone's screen. */
const MAX_TRADERS = 12;
const TOKEN_KEY = "logrelay.token";

const $ = (id) => document.getElementById(id);
const [scroller, list, older, fresh, pause, problem] =
  ["scroller", "lines", "older", "fresh", "pause", "problem"].map($);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// --- one line

const data = new WeakMap(); // row -> line

function valueText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** One line of a value; of a traceback the last one, which says what happened. */
function short(text, key = "") {
  const last = TRACEBACKS.has(key) && text.trimEnd().lastIndexOf("\n");
  const line = last > 0 ? `\u2026 ${text.slice(last).trim()}` : text.replaceAll("\n", "\u23ce");
  return line.length > VALUE_SHOWN ? `${line.slice(0, VALUE_SHOWN)}\u2026` : line;
}

function clock(timestamp) {
  const time = new Date(timestamp);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${timestamp.slice(20, 23)}`;
}

/** Head a row with its date when the line before it is of another day. */
function markDay(row, before) {
  const [day, other] = [data.get(row), before].map((line) => line && new Date(line.timestamp).toDateString());
  if (other && day !== other) row.dataset.day = day;
}

function buildRow(line) {
  const { notice, severity } = line.context;
  const row = element("li", `row ${LEVELS.includes(line.level) ? line.level : "INFO"}`);
  if (notice && line.source === "logrelay") row.classList.add("notice", notice === "gap" ? "gap" : "told");
  row.tabIndex = 0;
  const head = element("span", "head");
  const time = element("time", "", clock(line.timestamp));
  time.dateTime = line.timestamp;
  head.append(time, " ", element("b", "level", severity === "CRITICAL" ? "CRITICAL" : line.level), " ",
    element("span", "source", line.source));
  const text = element("span", "text");
  text.append(element("span", "message", line.message));
  for (const [key, value] of Object.entries(row.classList.contains("notice") ? {} : line.context)) {
    if (key === "severity") continue; // shown as the level
    text.append(" ", element("span", "key", `${short(key)}=`), element("span", "value", short(valueText(value), key)));
  }
  row.append(head, text);
  data.set(row, line);
  return row;
}

function buildDetails(line) {
  const details = element("div", "details");
  const facts = element("dl");
  const fact = (name, value, condition) => {
    const shown = typeof value === "object" && value !== null ? JSON.stringify(value, null, 2) : valueText(value);
    const description = element("dd");
    description.append(element("pre", "", shown));
    if (condition) {
      const only = element("button", "only", "only these");
      only.type = "button";
      only.onclick = () => addCondition(...condition);
      description.append(only);
    }
    facts.append(element("dt", "", name), description);
  };
  fact("time", line.timestamp);
  fact("source", line.source, line.source !== "logrelay" && ["source", line.source.replace(/[*?[]/g, "[$&]")]);
  fact("message", line.message);
  for (const [key, value] of Object.entries(line.context)) {
    // Numbers cannot be asked for: 1.0 and 1 are the same here, and not the same to the relay.
    const text = typeof value === "string" || typeof value === "boolean" ? `${key}=${value}` : "";
    fact(key, value, text && text.length <= 256 && !/["\0=]/.test(key) && ["where", text]);
  }
  fact("id", line.id);
  details.append(facts);
  if (navigator.clipboard) {
    const copy = element("button", "copy", "copy as JSON");
    copy.type = "button";
    copy.onclick = () => navigator.clipboard.writeText(JSON.stringify(line)).then(() => { copy.textContent = "copied"; });
    details.append(copy);
  }
  return details;
}

function toggle(row) {
  const details = row.querySelector(".details");
  const top = row.getBoundingClientRect().top;
  if (!details && !paused) hold("row"); // what is being read must not move away
  if (details) details.remove();
  else row.append(buildDetails(data.get(row)));
  row.classList.toggle("open", !details);
  scroller.scrollTop += row.getBoundingClientRect().top - top; // growing at the bottom must not lift it off
  if (!details) row.scrollIntoView({ block: "nearest" });
  else if (held === "row" && -scroller.scrollTop <= AT_BOTTOM) resume();
}

list.addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (row && !event.target.closest(".details") && String(getSelection()) === "") toggle(row);
});
list.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.classList.contains("row")) toggle(event.target);
});

// --- the list. The scroller is a reversed column: its origin is the bottom, so it follows by itself while it is
// --- there, and older lines put in on top move nothing.

let waiting = []; // lines without a row yet: a few frames' worth, or, while paused, those behind the button
let unseen = 0; // lines since the pause, those given up included
let paused = false;
let detached = false; // more came during the pause than is kept: going on means beginning again at the end
let count = 0; // rows in the list; asking the list counts them one by one
let frame = 0;
let loading = null; // the id before which older lines were asked for
let more = false; // the journal may have lines before the first row

function add(lines) {
  for (const line of lines) waiting.push(line);
  if (paused) {
    unseen += lines.length;
    if (waiting.length > MAX_LINES) detached = true;
    if (detached) waiting = [];
    showFresh();
  } else {
    if (waiting.length > MAX_LINES) { // the page sleeps: these would be drawn and removed again
      waiting = waiting.slice(-MAX_LINES);
      empty();
    }
    draw();
  }
  freshen(lines);
}

function draw() {
  if (!frame && waiting.length && !paused) frame = requestAnimationFrame(drawSome);
}

function drawSome() {
  frame = 0;
  if (paused) return;
  // Behind by much: more per frame, so that drawing always overtakes arriving.
  let chunk = list.lastChild;
  let before = chunk && data.get(chunk.lastChild);
  for (const line of waiting.splice(0, Math.max(ROWS_PER_FRAME, waiting.length >> 2))) {
    const row = buildRow(line);
    markDay(row, before);
    if (!chunk || chunk.childElementCount >= CHUNK) list.append(chunk = element("ol"));
    chunk.append(row);
    before = line;
    count += 1;
  }
  while (count > MAX_LINES) {
    count -= list.firstChild.childElementCount;
    list.firstChild.remove();
    more = true;
  }
  showEdges();
  draw();
}

function empty() {
  list.replaceChildren();
  count = 0;
  loading = null;
  more = true;
}

function reset() {
  waiting = [];
  unseen = 0;
  detached = false;
  empty();
  setPaused(false);
  scroller.scrollTop = 0;
  showEdges();
}

function showEdges() {
  $("empty").hidden = count > 0 || waiting.length > 0;
  $("empty").textContent = state !== "open" ? "Not connected yet."
    : filtering() ? "No line matches so far." : "Nothing has been logged yet.";
  older.hidden = count === 0;
  older.disabled = loading || !more || count >= MAX_LINES;
  const text = loading ? "loading\u2026" : !more ? "the oldest line that is kept"
    : count >= MAX_LINES ? `no more than ${MAX_LINES} lines fit in this page` : "load older lines";
  if (older.textContent !== text) older.textContent = text;
}

function loadOlder() {
  if (!count || loading || !more || count >= MAX_LINES) return;
  const { id } = data.get(list.firstChild.firstChild);
  if (client.history(id, HISTORY)) loading = id;
  showEdges();
}

function addOlder(lines, hasMore, before) {
  if (loading !== before) return; // the list was emptied meanwhile
  loading = null;
  more = hasMore;
  if (lines.length) markDay(list.firstChild.firstChild, lines.at(-1));
  const rows = lines.map(buildRow);
  rows.forEach((row, i) => markDay(row, lines[i - 1]));
  for (let end = rows.length; end > 0; end -= CHUNK) {
    const chunk = element("ol");
    chunk.append(...rows.slice(Math.max(0, end - CHUNK), end));
    list.prepend(chunk);
  }
  count += lines.length;
  showEdges();
}

function showFresh() {
  fresh.hidden = !paused || unseen === 0;
  fresh.textContent = `${unseen} new ${unseen === 1 ? "line" : "lines"} \u2193`;
}

function setPaused(value) {
  paused = value;
  pause.textContent = paused ? "resume" : "pause";
  pause.setAttribute("aria-pressed", String(paused));
  if (!paused) {
    unseen = 0;
    draw();
  }
  showFresh();
}

function resume() {
  const behind = detached;
  setPaused(false);
  scroller.scrollTop = 0;
  if (behind) client.subscribe(client.filter);
}

let held = ""; // what the pause came from: "scroll" ends at the bottom, "row" by closing the row, "button" by the button
function hold(by) {
  held = by;
  setPaused(true);
}

pause.onclick = () => (paused ? resume() : hold("button"));
fresh.onclick = resume;
older.onclick = loadOlder;
scroller.addEventListener("scroll", () => {
  const up = -scroller.scrollTop;
  if (up > AT_BOTTOM && !paused) {
    hold("scroll");
  } else if (up <= AT_BOTTOM && paused && held === "scroll") {
    resume();
  }
  if (up > AT_BOTTOM && scroller.scrollHeight - scroller.clientHeight - up < NEAR_TOP) loadOlder();
}, { passive: true });

// --- how fresh this is: the connection, the last line, the traders

let state = "connecting";
let detail = "";
let lastLine = 0; // milliseconds, of the newest line a trader wrote
let head = null;
const traders = new Map();

function freshen(lines) {
  for (const line of lines) {
    const { notice, ...about } = line.context;
    if (line.source !== "logrelay" || !notice) lastLine = Math.max(lastLine, Date.parse(line.timestamp));
    else if (notice === "trader") seeTrader(about, line.timestamp);
  }
  if (head && splitId(lines.at(-1)?.id ?? "-0").seq >= head.seq) head = null;
  showState();
}

function seeTrader(trader, since) {
  if (!TRADER_STATES.has(trader.state)) return; // a notice about something else, such as its clock
  traders.delete(trader.run); // the order is that of the last change
  traders.set(trader.run, { ...trader, since });
  for (const [run, { app }] of traders) { // a restarted trader replaces the run that ended before it
    if (traders.size > MAX_TRADERS || (app === trader.app && run !== trader.run && ENDED.has(traders.get(run).state))) {
      traders.delete(run);
    }
  }
  showTraders();
}

function showTraders() {
  $("traders").replaceChildren(...[...traders.values()].reverse().map((seen) => {
    const chip = element("li", "trader", `${seen.app} ${seen.state}`);
    chip.dataset.state = seen.state;
    chip.title = `pid ${seen.pid} on ${seen.host}${seen.since ? `, ${seen.state} since ${seen.since}` : ""}`;
    return chip;
  }));
}

function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} days`;
}

function showState() {
  const catching = state === "open" && head !== null;
  const word = { connecting: "connecting", open: catching ? "catching up" : "live", waiting: "reconnecting",
    refused: "refused", stopped: "stopped" };
  $("state").dataset.state = catching ? "catching" : state;
  if ($("state").textContent !== word[state]) $("state").textContent = word[state];
  $("state").title = detail;
  const silence = Date.now() - lastLine;
  const seen = state === "open" ? "last line" : "last line seen"; // there may be newer ones that cannot reach us
  const age = !lastLine ? "" : silence < 2000 ? `${seen} just now` : `${seen} ${ago(silence)} ago`;
  if ($("age").textContent !== age) $("age").textContent = age;
  $("traders").classList.toggle("stale", state !== "open"); // what they were; what they are is not known
}

function say(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

/** A script is not told why a WebSocket was refused; the same question over HTTP is answered. */
async function diagnose() {
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(new URL("logs?limit=1", base), { method: "HEAD", headers, cache: "no-store" });
    if (answer.status === 401) {
      if (token) say("The relay does not know this token.");
      $("login").hidden = false;
    } else if (answer.status === 403) {
      say("The relay does not let this page in. Its address has to be among the allowed origins.");
    } else {
      if (state === "open") return; // it came back while we asked
      say(answer.ok ? "The relay answers, but refuses the stream: it has too many viewers, or just restarted."
        : `The relay answers, but not to this page (HTTP ${answer.status}).`);
    }
  } catch {
    if (state !== "open") say("The relay cannot be reached from here. What it keeps meanwhile will follow.");
  }
}

// --- what to see; the address of the page says it too, so that it can be kept and passed on

const asked = new URLSearchParams(location.search);
const filter = {
  level: LEVELS.includes(asked.get("level")) ? asked.get("level") : "DEBUG",
  text: asked.get("text") ?? "",
  source: asked.getAll("source"),
  where: asked.getAll("where"),
};

function current() {
  return { ...filter, level: filter.level === "DEBUG" ? "" : filter.level };
}

function filtering() {
  return Object.values(current()).some((value) => value.length > 0);
}

function showFilter() {
  for (const button of $("levels").children) {
    button.setAttribute("aria-pressed", String(LEVELS.indexOf(button.dataset.level) >= LEVELS.indexOf(filter.level)));
  }
  if ($("text").value.trim() !== filter.text) $("text").value = filter.text;
  $("conditions").replaceChildren(...["source", "where"].flatMap((kind) => filter[kind].map((value) => {
    const chip = element("button", "", `${kind === "source" ? `source=${value}` : value} \u00d7`);
    chip.type = "button";
    chip.setAttribute("aria-label", `remove the filter ${value}`);
    chip.onclick = () => {
      filter[kind] = filter[kind].filter((other) => other !== value);
      refilter();
    };
    const item = element("li");
    item.append(chip);
    return item;
  })));
  const address = new URLSearchParams();
  for (const [name, value] of Object.entries(current())) [value].flat().forEach((one) => one && address.append(name, one));
  history.replaceState(null, "", `${location.pathname}${address.size ? `?${address}` : ""}`);
}

function refilter() {
  showFilter();
  say("");
  client.subscribe(current());
}

function addCondition(kind, value) {
  if (!filter[kind].includes(value)) filter[kind] = [...filter[kind], value];
  refilter();
}

let typing = 0;
function searchNow() {
  clearTimeout(typing);
  const text = $("text").value.trim();
  if (text === filter.text) return;
  filter.text = text;
  refilter();
}
$("text").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(searchNow, TYPING);
};
$("controls").onsubmit = (event) => {
  event.preventDefault();
  searchNow();
  $("text").blur(); // put the phone's keyboard away
};
$("levels").onclick = (event) => {
  const level = event.target.dataset.level;
  if (!level || level === filter.level) return;
  filter.level = level;
  refilter();
};

// --- the token leaves the address bar before anything else can see it; a fragment never even reached the server

const given = asked.get("token") ?? new URLSearchParams(location.hash.slice(1)).get("token");
if (given) sessionStorage.setItem(TOKEN_KEY, given);
let token = sessionStorage.getItem(TOKEN_KEY);
$("login").onsubmit = (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem(TOKEN_KEY, token);
  $("token").value = "";
  $("login").hidden = true;
  say("");
  client.setToken(token);
};

// --- begin

const base = new URL(".", location.href);
const socket = new URL("ws", base);
socket.protocol = socket.protocol === "https:" ? "wss:" : "ws:";

const client = new LogRelayClient({
  url: socket.href,
  token,
  filter: current(),
  tail: TAIL,
  maxResume: MAX_LINES,
  onLines: add,
  onReset: reset,
  onHistory: addOlder,
  onError: (error) => {
    loading = null;
    say(error.message);
    showEdges();
  },
  onConnection: (message) => {
    say("");
    $("login").hidden = true;
    head = filtering() ? null : splitId(message.head);
    if (head && (head.seq === 0 || (client.lastId && splitId(client.lastId).seq >= head.seq))) head = null;
    traders.clear();
    showTraders();
    for (const trader of [...(message.traders ?? [])].reverse()) { // the most recently seen comes first
      seeTrader(trader, "");
      if (trader.last_line) lastLine = Math.max(lastLine, Date.parse(trader.last_line));
    }
    showState();
  },
  onState: (now, why) => {
    [state, detail] = [now, why];
    showState();
  },
  onLost: ({ code, reason, greeted }) => {
    loading = null;
    showEdges();
    if (!greeted) diagnose();
    else if (reason) say(`The connection ended: ${reason}${code > 1001 ? ` (${code})` : ""}.`);
  },
});

showFilter();
showEdges();
addEventListener("online", () => client.wake());
addEventListener("offline", () => client.offline());
addEventListener("pageshow", (event) => event.persisted && client.start());
addEventListener("pagehide", () => client.stop());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && client.wake());
setInterval(showState, 1000);
client.start();
