/**
 * How fresh the page is: the state of the connection, whether it is still catching up, the age of the last line.
 *
 * Owns: these three and their words. It must not know why a connection failed, nor what traders are: what a notice
 * says about one goes on to the traders it is given. Read `static/traders.js` next.
 */

import { splitId } from "./client.js";
import { setText } from "./dom.js";

/** Words for the client's states that are not shown as they are. */
const WORDS = { open: "live", waiting: "reconnecting" };
/** Milliseconds up to which the last line came "just now": below that, the number would only flicker. */
const JUST_NOW = 2_000;
/** Milliseconds after which the age is shown anew. */
const TICK = 1_000;

function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} days`;
}

export class Status {
  #parts; // the elements, see the constructor
  #traders;
  #state = "connecting";
  #detail = "";
  #lastLine = 0; // milliseconds, of the newest line a trader wrote
  #head = null; // the newest line when the connection opened; null once it was reached

  /** `parts` are the elements `state` and `age`; `traders` is a Traders. Shows the age anew every second, for ever. */
  constructor({ parts, traders }) {
    this.#parts = parts;
    this.#traders = traders;
    setInterval(() => this.#show(), TICK);
  }

  /** Whether the connection is open. */
  get open() {
    return this.#state === "open";
  }

  /** Take what the client's onState says. */
  setState(state, detail) {
    this.#state = state;
    this.#detail = detail;
    this.#show();
  }

  /** Take the first message of a connection. `lastId` is the last line seen; a filter hides how far behind it is. */
  greeted(message, lastId, filtered) {
    const head = splitId(message.head);
    const reached = head.seq === 0 || (lastId && splitId(lastId).seq >= head.seq);
    this.#head = filtered || reached ? null : head;
    const traders = message.traders ?? [];
    this.#traders.replace(traders);
    for (const { last_line } of traders) {
      if (last_line) this.#lastLine = Math.max(this.#lastLine, Date.parse(last_line));
    }
    this.#show();
  }

  /** Take new lines, in order. */
  saw(lines) {
    for (const line of lines) {
      const { notice, ...about } = line.context;
      if (line.source !== "logrelay" || !notice) {
        this.#lastLine = Math.max(this.#lastLine, Date.parse(line.timestamp));
      } else if (notice === "trader") {
        this.#traders.see(about, line.timestamp);
      }
    }
    if (this.#head && splitId(lines.at(-1)?.id ?? "-0").seq >= this.#head.seq) this.#head = null;
    this.#show();
  }

  #show() {
    const { state, age } = this.#parts;
    const catching = this.open && this.#head !== null;
    state.dataset.state = catching ? "catching" : this.#state;
    setText(state, catching ? "catching up" : WORDS[this.#state] ?? this.#state);
    state.title = this.#detail;
    const silence = Date.now() - this.#lastLine;
    const seen = this.open ? "last line" : "last line seen"; // there may be newer ones that cannot reach us
    setText(age, !this.#lastLine ? "" : silence < JUST_NOW ? `${seen} just now` : `${seen} ${ago(silence)} ago`);
    this.#traders.setStale(!this.open);
  }
}
