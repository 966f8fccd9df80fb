/**
 * Which lines are about a trade, and which of their fields mean what: read by a table, never guessed.
 *
 * Owns: the table that the relay serves, and what a line means by it. It must not know elements, nor where lines come
 * from. Read `static/filters.js` next.
 */

/** Events of an order, in the order in which they happen. */
const KINDS = ["signal", "order", "fill", "rejection"];
const FIELDS = ["order_id", "symbol", "side", "quantity", "price", "pnl", "reason"];

export class TradeNames {
  #kinds = new Map();
  #fields = {};

  constructor() {
    /** Messages of the lines that tell how much was gained, and their fields for it. */
    this.report = { events: [], amounts: [], positions: [] };
  }

  /** Take the table, from /trade-names. Before, and with an empty one, no line is about a trade. */
  take(table) {
    this.#kinds.clear();
    for (const kind of KINDS) for (const event of table[kind] ?? []) this.#kinds.set(event, kind);
    this.#fields = table;
    this.report = { events: table.report ?? [], amounts: table.amount ?? [], positions: table.positions ?? [] };
  }

  /** The messages of all lines about trades. */
  get events() {
    return [...this.#kinds.keys()];
  }

  /** The context fields that name an order. */
  get orderFields() {
    return this.#fields.order_id ?? [];
  }

  /** What a line says about a trade: { kind, order_id, symbol, side, ... } with what it has; null for other lines. */
  read(line) {
    const kind = this.#kinds.get(line.message);
    if (!kind) return null;
    const found = { kind };
    for (const field of FIELDS) {
      const key = (this.#fields[field] ?? []).find((name) => line.context[name] !== undefined);
      if (key) found[field] = line.context[key];
    }
    return found;
  }

  /** Whether a signal or an order needs no row of its own, because the next line goes on with the same trade. */
  foldsInto(line, next) {
    const [one, other] = [this.read(line), this.read(next)];
    if (!one || !other || line.run !== next.run || (one.kind !== "signal" && one.kind !== "order")) return false;
    return one.order_id === undefined || one.kind === "signal"
      ? other.kind === "order" && one.symbol === other.symbol && one.side === other.side
      : one.order_id === other.order_id && KINDS.indexOf(other.kind) > KINDS.indexOf(one.kind);
  }

  /** What a line reports of gains: { amounts: [[name, value]], positions }; null when it reports none. */
  readReport(line) {
    if (!this.report.events.includes(line.message)) return null;
    const amounts = this.report.amounts.filter((key) => line.context[key] !== undefined)
      .map((key) => [key, line.context[key]]);
    const open = this.report.positions.find((key) => line.context[key] !== undefined);
    return amounts.length || open ? { amounts, positions: open && line.context[open] } : null;
  }
}
