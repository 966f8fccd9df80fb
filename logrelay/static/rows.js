/**
 * One line as a closed row: time, level, app, source, message and the values, each cut to what fits a list.
 *
 * Owns: what a row shows, and its date when a day begins with it. It must not know the list that the rows are in,
 * nor keep anything: the same line always gives the same row. Read `static/detail.js` next for the open row.
 */

import { LEVELS } from "./client.js";
import { element } from "./dom.js";

/** Characters of a context value in a closed row; the open row has all of it. */
const VALUE_SHOWN = 120;
/** Context keys whose last line says the most. */
const TRACEBACKS = new Set(["exception", "traceback", "exc_info", "stack"]);

/** A value of the context in full: strings as they are, everything else as JSON. */
export function valueText(value) {
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

/** Head the row of `line` with its date when `before`, the line above it, is of another day. */
export function markDay(row, line, before) {
  const [day, other] = [line, before].map((one) => one && new Date(one.timestamp).toDateString());
  if (other && day !== other) row.dataset.day = day;
}

/** Make the closed row of a line. */
export function buildRow(line) {
  const { notice, severity } = line.context;
  const row = element("li", `row ${LEVELS.includes(line.level) ? line.level : "INFO"}`);
  if (notice && line.source === "logrelay") row.classList.add("notice", notice === "gap" ? "gap" : "told");
  row.tabIndex = 0;
  const head = element("span", "head");
  const time = element("time", "", clock(line.timestamp));
  time.dateTime = line.timestamp;
  head.append(time, " ", element("b", "level", severity === "CRITICAL" ? "CRITICAL" : line.level), " ");
  if (line.app) head.append(element("span", "app", line.app), " ");
  head.append(element("span", "source", line.source));
  const text = element("span", "text");
  text.append(element("span", "message", line.message));
  for (const [key, value] of Object.entries(row.classList.contains("notice") ? {} : line.context)) {
    if (key === "severity") continue; // shown as the level
    text.append(" ", element("span", "key", `${short(key)}=`), element("span", "value", short(valueText(value), key)));
  }
  row.append(head, text);
  return row;
}
