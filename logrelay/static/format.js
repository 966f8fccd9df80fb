/**
 * How values, times and counts are written for a person.
 *
 * Owns: that nothing a bot logged can change how other text is read: colour codes of terminals go, and characters that
 * steer the direction of text or a terminal are shown by their number. It must not know elements, nor keep
 * anything. Read `static/sw.js` next.
 */

/** What colours a terminal: ESC [ ... letter. */
const ANSI = /\x1b\[[0-9;:?]*[ -/]*[@-~]/g;
/** Characters without a picture of their own that change how others are shown; tab and line feed are none of them. */
const STEERING = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Context keys whose value is a traceback. */
export const TRACEBACKS = ["exception", "traceback", "exc_info", "stack", "stack_info"];

/** A text without colour codes, and with every steering character shown as \u{number}. */
export function visible(text) {
  return text.replace(ANSI, "").replace(STEERING, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
}

/** A value of the context in full: strings as they are, everything else as JSON. */
export function valueText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** The last line of a text that is not empty; of a traceback it says what happened. */
export function lastLine(text) {
  return text.trimEnd().split("\n").at(-1).trim();
}

/** The last line of an exception without the module of its class, which would push the reason off a small screen. */
export function shortError(text) {
  return text.replace(/^(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_]\w*(?::|$))/, "");
}

const two = (n) => String(n).padStart(2, "0");

/** The local time of day to the second. */
export function clock(timestamp) {
  const time = new Date(timestamp);
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

/** The local day, for a person. */
export function day(timestamp) {
  return new Date(timestamp).toLocaleDateString(undefined, { weekday: "short", day: "numeric", month: "short" });
}

/** Hours and minutes, with the day when it is not today's. */
export function moment(timestamp, now = Date.now()) {
  const at = clock(timestamp).slice(0, 5);
  return new Date(timestamp).toDateString() === new Date(now).toDateString() ? at : `${day(timestamp)} ${at}`;
}

/** Everything: local date and time with milliseconds, and the offset. */
export function fullTime(timestamp) {
  const time = new Date(timestamp);
  const offset = -time.getTimezoneOffset();
  const zone = `${offset < 0 ? "-" : "+"}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  const date = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${date} ${clock(timestamp)}.${timestamp.slice(20, 26).replace(/Z$/, "")} ${zone}`;
}

/** A time as the value of an input of the type datetime-local, which is local and knows no offset. */
export function inputTime(milliseconds) {
  return new Date(milliseconds - new Date(milliseconds).getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/** The last local midnight, in milliseconds. */
export function midnight(now = Date.now()) {
  return new Date(now).setHours(0, 0, 0, 0);
}

/** A duration in its largest unit. */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} days`;
}

/** "1 error", "12 errors", "1,234 lines"; `many` where the plural is another. */
export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}
