/**
 * The traders: one chip for each, with its state.
 *
 * Owns: what is known of them, and which of them are worth a chip. It must not know lines, notices or the connection:
 * it is told. Read `static/diagnosis.js` next.
 */

import { element } from "./dom.js";

const STATES = new Set(["connected", "quiet", "lost", "closed", "crashed", "gone"]);
const ENDED = new Set(["closed", "crashed", "gone"]);
/** Traders shown; more would push everything else off a phone's screen. */
const MAX_TRADERS = 12;

export class Traders {
  #list;
  #byRun = new Map(); // the order is that of the last change

  /** `list` is the element that gets the chips. */
  constructor(list) {
    this.#list = list;
  }

  /** Forget all, and take these; the most recently seen comes first. */
  replace(traders) {
    this.#byRun.clear();
    for (const trader of [...traders].reverse()) this.#take(trader, "");
    this.#show();
  }

  /** Take the state a trader changed to at a time. */
  see(trader, since) {
    if (this.#take(trader, since)) this.#show();
  }

  /** Say whether this is what they were, and what they are is not known. */
  setStale(stale) {
    this.#list.classList.toggle("stale", stale);
  }

  #take(trader, since) {
    if (!STATES.has(trader.state)) return false; // a notice about something else, such as its clock
    const known = this.#byRun;
    known.delete(trader.run);
    known.set(trader.run, { ...trader, since });
    for (const [run, { app, state }] of known) { // a restarted trader replaces the run that ended before it
      if (known.size > MAX_TRADERS || (app === trader.app && run !== trader.run && ENDED.has(state))) known.delete(run);
    }
    return true;
  }

  #show() {
    this.#list.replaceChildren(...[...this.#byRun.values()].reverse().map((seen) => {
      const chip = element("li", "trader", `${seen.app} ${seen.state}`);
      chip.dataset.state = seen.state;
      chip.title = `pid ${seen.pid} on ${seen.host}${seen.since ? `, ${seen.state} since ${seen.since}` : ""}`;
      return chip;
    }));
  }
}
