/**
 * Today's trades: one row for each order, and one line of money, from what bots logged and from nothing else.
 *
 * Owns: asking for the lines of trades, and folding those of one order together. It must not know which events and
 * fields mean what: `tradenames.js` reads lines. Read `static/notify.js` next.
 */

import { splitId } from "./client.js";
import { button, element } from "./dom.js";
import { clock, midnight, moment, valueText, visible } from "./format.js";
import { reasonOf, signed } from "./rows.js";

/** Lines that are asked for at once, and in all, of each event: far more trades than a person reads in a day. */
const PAGE = 1_000;
const MOST = 10_000;
/** Of the newest matches this many are looked at: notices may be among them. */
const NEWEST = 50;
/** Orders that are shown; the newest. */
const SHOWN = 500;
/** Milliseconds between a signal and its order at most: a signal does not say which order it led to. */
const SIGNAL_LEADS = 60_000;

/** Fold lines, in order, into trades, the newest first. A signal belongs to the next order for the same in its run. */
export function foldTrades(lines, names) {
  const trades = new Map();
  const signals = new Map();
  for (const line of lines) {
    const said = names.read(line);
    if (!said) continue;
    const same = JSON.stringify([line.app, line.run, said.symbol, said.side]);
    if (said.kind === "signal" && said.order_id === undefined) {
      signals.set(same, line);
      continue;
    }
    if (said.order_id === undefined) continue;
    const key = JSON.stringify([line.app, said.order_id]);
    const trade = trades.get(key) ?? { app: line.app, order_id: said.order_id, fills: [], lines: [], rejected: null };
    if (said.kind === "order") {
      const signal = signals.get(same);
      if (signal && Date.parse(line.timestamp) - Date.parse(signal.timestamp) <= SIGNAL_LEADS) trade.lines.push(signal);
      signals.delete(same);
    }
    trade.symbol ??= said.symbol;
    trade.side ??= said.side;
    if (said.kind === "order") trade.quantity ??= said.quantity;
    if (said.kind === "fill") trade.fills.push(said);
    if (said.kind === "rejection") trade.rejected = line;
    trade.lines.push(line);
    trades.set(key, trade);
  }
  return [...trades.values()].sort((a, b) => splitId(b.lines.at(-1).id).seq - splitId(a.lines.at(-1).id).seq);
}

export class Trades {
  #parts;
  #outside;
  #names;
  #lines = new Map(); // id -> line, of today
  #day = midnight();
  #report = null; // the newest line that tells of gains
  #asked = 0; // generations of questions
  #complete = true;
  #timer = 0;

  /**
   * `parts` are elements: the list `trades`, the text `money`, the text `tradesnote`. `names` is a TradeNames. `outside`
   * has functions: `ask(query, filter)` (Relay.lines), `follow(trade)` shows the lines of one, `isShown()`.
   */
  constructor({ parts, names, outside }) {
    this.#parts = parts;
    this.#names = names;
    this.#outside = outside;
  }

  /** Ask for all of today. Rejects as `ask` does. */
  async load() {
    const asked = ++this.#asked;
    const since = midnight();
    const found = await Promise.all(this.#names.events.map((event) => this.#today(event, since)));
    const reports = await Promise.all(this.#names.report.events.map((event) => this.#newest(event, since)));
    if (asked !== this.#asked) return;
    if (this.#day !== since) { // what the stream brought meanwhile stays
      this.#lines.clear();
      this.#report = null;
      this.#day = since;
    }
    this.#complete = found.every(({ complete }) => complete);
    this.add([...found.flatMap(({ lines }) => lines), ...reports.flat()]);
    this.show();
  }

  /** Take lines, for example of the stream; what is not about trades is ignored. */
  add(lines) {
    let any = false;
    for (const line of lines) {
      if (this.#names.readReport(line)) {
        if (!this.#report || splitId(line.id).seq > splitId(this.#report.id).seq) this.#report = line;
        any = true;
      }
      if (!this.#names.read(line) || Date.parse(line.timestamp) < this.#day || this.#lines.size >= MOST) continue;
      this.#lines.set(line.id, line);
      any = true;
    }
    if (any) this.#timer ||= setTimeout(() => this.show(), 200);
  }

  show() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const { trades, tradesnote } = this.#parts;
    const inOrder = [...this.#lines.values()].sort((a, b) => splitId(a.id).seq - splitId(b.id).seq);
    this.#showMoney(inOrder);
    if (!this.#outside.isShown()) return;
    const folded = foldTrades(inOrder, this.#names);
    trades.replaceChildren(...(folded.length ? folded.slice(0, SHOWN).map((trade) => this.#build(trade))
      : [element("li", "none", "No trade was logged today.")]));
    tradesnote.textContent = folded.length > SHOWN ? `the newest ${SHOWN} of ${folded.length.toLocaleString("en")} orders`
      : this.#complete ? "" : "there were more than fit here";
    tradesnote.hidden = !tradesnote.textContent;
  }

  async #today(event, since) {
    const lines = [];
    let query = { since: new Date(since).toISOString() };
    while (lines.length < MOST) {
      const page = await this.#outside.ask({ ...query, limit: PAGE }, { text: event });
      lines.push(...page.lines.filter((line) => line.message === event));
      if (page.lines.length < PAGE) return { lines, complete: true };
      query = { after: page.lines.at(-1).id };
    }
    return { lines, complete: false };
  }

  /** The newest line of an event, if there was any since a time: looking for what never was would read everything. */
  async #newest(event, since) {
    const filter = { text: event };
    const any = await this.#outside.ask({ since: new Date(since).toISOString(), limit: 1 }, filter);
    if (!any.lines.length) return [];
    return (await this.#outside.ask({ limit: NEWEST }, filter)).lines.filter((line) => line.message === event).slice(-1);
  }

  #showMoney(lines) {
    const { money } = this.#parts;
    const report = this.#report && Date.parse(this.#report.timestamp) >= this.#day ? this.#names.readReport(this.#report) : null;
    const fills = lines.filter((line) => this.#names.read(line).kind === "fill").length;
    const words = (report?.amounts ?? []).map(([name, value]) => `${name.replaceAll("_", " ")} ${/pnl|profit|gain|loss/i.test(name) ? signed(value) : valueText(value)}`);
    if (fills) words.push(`${fills.toLocaleString("en")} ${fills === 1 ? "fill" : "fills"}`);
    if (report?.positions !== undefined) words.push(`${valueText(report.positions)} open`);
    const at = report ? this.#report.timestamp : lines.at(-1)?.timestamp;
    money.hidden = !words.length;
    money.textContent = words.length ? `today ${visible(words.join(" \u00b7 "))} (${moment(at)})` : "";
  }

  #build(trade) {
    const item = element("li");
    const face = button(`trade ${trade.rejected ? "rejected" : ""}`, undefined, () => this.#outside.follow(trade));
    const first = element("span", "first");
    const last = trade.lines.at(-1);
    const side = String(trade.side ?? "");
    const state = trade.rejected ? "REJECTED" : trade.fills.length ? "" : "ORDERED";
    const fill = trade.fills.at(-1);
    const said = [element("time", "", clock(last.timestamp))];
    if (state) said.push(element("b", "outcome", state));
    if (side) said.push(element("bdi", `side ${/^(sell|short|ask)/i.test(side) ? "sell" : "buy"}`, visible(side.toUpperCase())));
    const quantity = trade.quantity ?? (trade.fills.length === 1 ? fill.quantity : undefined);
    for (const value of [quantity, trade.symbol]) if (value !== undefined) said.push(element("bdi", "", visible(valueText(value))));
    if (fill?.price !== undefined) said.push(element("bdi", "price", `@${visible(valueText(fill.price))}`));
    if (fill?.pnl !== undefined) said.push(element("bdi", `pnl ${Number(fill.pnl) < 0 ? "loss" : "gain"}`, visible(signed(fill.pnl))));
    first.append(...said.flatMap((part) => [part, " "]));
    const second = element("span", "second");
    const why = trade.rejected ? reasonOf(trade.rejected) : reasonOf(trade.lines[0]);
    if (why) second.append(element("bdi", "reason", visible(why)), " ");
    second.append(element("bdi", "source", visible(`${trade.app ?? ""} ${valueText(trade.order_id)}${trade.fills.length > 1 ? ` \u00b7 ${trade.fills.length} fills` : ""}`.trim())));
    face.append(first, second);
    item.append(face);
    return item;
  }
}
