/**
 * One line as a row: one text line for what is usual, two for what is not, and what matters first in both.
 *
 * Owns: what a row shows and how high it is. It must not know the list that the rows are in, nor keep anything: the same
 * line, between the same neighbours, always gives the same row. Read `static/tradenames.js` next.
 */

import { splitId } from "./client.js";
import { button, element } from "./dom.js";
import { clock, day, lastLine, shortError, TRACEBACKS, valueText, visible } from "./format.js";

/** Characters of a value in a row; the detail sheet has all of it. */
const VALUE_SHOWN = 160;
/** Keys that say why, the best first; an exception says it better. */
const REASONS = ["reason", "cause", "error", "err", "why", "detail", "details"];
/** Keys that every line of a bot has, or that say where in its code it was: no news in a row. */
const NOISE = new Set(["day", "at", "pid", "process", "thread", "thread_name", "host", "hostname", "file", "filename",
  "lineno", "func_name", "module", "pathname", "severity", "clock", "time_ns", ...TRACEBACKS]);
const LETTERS = { DEBUG: "D", INFO: "I", WARNING: "W", ERROR: "E", CRITICAL: "C" };

/** The level of a line with CRITICAL told apart; one that is not known counts as INFO. */
export function levelOf(line) {
  return line.context.severity === "CRITICAL" ? "CRITICAL" : LETTERS[line.level] ? line.level : "INFO";
}

/** Whether the relay itself says it. */
export function isNotice(line) {
  return line.source === "logrelay" && line.context.notice !== undefined;
}

/** Why it happened, in one text line; empty when the line does not say. */
export function reasonOf(line) {
  for (const key of TRACEBACKS) {
    if (typeof line.context[key] === "string") return shortError(lastLine(line.context[key]));
  }
  const key = REASONS.find((one) => line.context[one] !== undefined && line.context[one] !== null);
  return key ? valueText(line.context[key]) : "";
}

/** Put a text into an element, isolated from its surroundings, with every occurrence of what is searched marked. */
export function appendText(parent, className, text, search = "") {
  const part = element("bdi", className);
  const shown = visible(text);
  const [low, wanted] = [shown.toLowerCase(), search.toLowerCase()];
  let from = 0;
  for (let at = wanted && low.indexOf(wanted); wanted && at >= 0; at = low.indexOf(wanted, from)) {
    part.append(shown.slice(from, at), element("mark", "", shown.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  part.append(shown.slice(from));
  if (parent.lastChild && parent.lastChild.className !== "key") parent.append(" "); // what reads aloud needs it, too
  parent.append(part);
}

export class Rows {
  #seen;
  #apps;
  #search;
  #isExcluded;
  #trades;

  /**
   * Functions: `seen()` gives the seq of the last line that was seen, or null; `apps()` whether there are several bots;
   * `search()` the text that is searched; `isExcluded(line)` whether a line is left out. `trades` is a TradeNames.
   */
  constructor({ seen, apps, search, isExcluded, trades }) {
    this.#seen = seen;
    this.#apps = apps;
    this.#search = search;
    this.#isExcluded = isExcluded;
    this.#trades = trades;
  }

  /** Name the parts of a row, from top to bottom: "day", "new", and "one" or "two" for the line; none is no row. */
  kinds(line, before, after) {
    const kinds = [];
    if (before && new Date(before.timestamp).toDateString() !== new Date(line.timestamp).toDateString()) kinds.push("day");
    const seen = this.#seen();
    if (seen !== null && before && splitId(before.id).seq <= seen && splitId(line.id).seq > seen) kinds.push("new");
    if (!this.#isExcluded(line) && !(after && this.#trades.foldsInto(line, after))) {
      kinds.push(line.level === "WARNING" || line.level === "ERROR" ? "two" : "one");
    }
    return kinds;
  }

  build(line, kinds) {
    const level = levelOf(line);
    const row = element("li", `row ${level}`);
    if (isNotice(line)) row.classList.add("notice", line.context.notice === "gap" ? "gap" : "told");
    if (kinds.includes("day")) row.append(element("div", "divider", day(line.timestamp)));
    if (kinds.includes("new")) row.append(element("div", "divider new", "new since you looked"));
    const face = button(`face ${kinds.at(-1)}`, undefined, null);
    face.setAttribute("aria-haspopup", "dialog");
    if (kinds.at(-1) !== "one" && kinds.at(-1) !== "two") face.hidden = true;
    const first = element("span", "first");
    const time = element("time", "", clock(line.timestamp));
    time.dateTime = line.timestamp;
    const letter = element("b", "letter", LETTERS[level]);
    letter.title = level;
    first.append(time, " ", letter);
    if (this.#apps() && line.app) appendText(first, "app", line.app);
    face.append(first);
    const trade = this.#trades.read(line);
    if (trade && trade.kind !== "signal" && trade.kind !== "order") this.#fillTrade(first, trade);
    else this.#fillLine(first, line);
    if (kinds.at(-1) === "two") {
      const second = element("span", "second");
      const reason = reasonOf(line);
      if (reason) appendText(second, "reason", this.#short(reason), this.#search());
      else this.#appendValues(second, line, isNotice(line) ? [] : Object.keys(line.context));
      this.#appendSource(second, line);
      face.append(second);
    }
    row.append(face);
    return row;
  }

  #fillLine(first, line) {
    const unusual = line.level === "WARNING" || line.level === "ERROR";
    if (!unusual) this.#appendSource(first, line);
    appendText(first, "message", line.message, this.#search());
    if (isNotice(line)) return;
    const reason = unusual && reasonOf(line);
    const keys = Object.keys(line.context).filter((key) => !(unusual && REASONS.includes(key)));
    if (!unusual || reason) this.#appendValues(first, line, keys);
  }

  /** A fill or a rejection: what was traded, without the names of the fields. */
  #fillTrade(first, trade) {
    if (trade.kind === "rejection") appendText(first, "message", "REJECTED");
    const side = String(trade.side ?? "");
    if (side) appendText(first, `side ${/^(sell|short|ask)/i.test(side) ? "sell" : "buy"}`, trade.kind === "fill" ? side.toUpperCase() : side);
    for (const name of ["quantity", "symbol"]) {
      if (trade[name] !== undefined) appendText(first, name, valueText(trade[name]), this.#search());
    }
    if (trade.price !== undefined) appendText(first, "price", `@${valueText(trade.price)}`);
    if (trade.pnl !== undefined) appendText(first, `pnl ${Number(trade.pnl) < 0 ? "loss" : "gain"}`, signed(trade.pnl));
  }

  #appendValues(parent, line, keys) {
    for (const key of keys) {
      if (NOISE.has(key)) continue;
      appendText(parent, "key", `${this.#short(key)}=`);
      appendText(parent, "value", this.#short(valueText(line.context[key])), this.#search());
    }
  }

  /** Name the source, where the name of the bot does not say it already: the last part of a dotted name. */
  #appendSource(parent, line) {
    if (isNotice(line) || (this.#apps() && line.app === line.source)) return;
    appendText(parent, "source", line.source.split(".").at(-1));
  }

  #short(text) {
    const line = text.replaceAll("\n", "\u23ce");
    return line.length > VALUE_SHOWN ? `${line.slice(0, VALUE_SHOWN)}\u2026` : line;
  }
}

/** An amount with its sign, as exactly as it came. */
export function signed(amount) {
  const text = valueText(amount);
  return /^[-+]/.test(text) || Number(text) === 0 ? text.replace("-", "\u2212") : `+${text}`;
}
