/**
 * The status bar: one line for each bot, in the colour of what is known of it, which without a connection is nothing.
 *
 * Owns: the words and colours of a bot's state, and which bot is the worst. It must not know how the state came here:
 * it is told of summaries, of lines and of the connection. Read `static/seen.js` next.
 */

import { splitId } from "./client.js";
import { button, element, redraw, setText } from "./dom.js";
import { moment, span, visible } from "./format.js";

/** Milliseconds after which the ages are shown anew. */
const TICK = 1_000;
/** Milliseconds up to which a bot spoke "just now": below that, the number would only flicker. */
const JUST_NOW = 2_000;
/** From the best to the worst. */
const TONES = ["idle", "good", "warn", "unknown", "bad"];
/** Word and tone of each state of a trader; one that is not known is shown as it is. */
const STATES = { connected: ["RUNNING", "good"], quiet: ["QUIET", "warn"], lost: ["CONNECTION LOST", "warn"],
  closed: ["STOPPED", "warn"], crashed: ["CRASHED", "bad"], gone: ["GONE", "bad"], unknown: ["UNKNOWN", "unknown"] };

export class Bots {
  #parts;
  #outside;
  #data = null;
  #received = 0; // when the data came, by this phone's clock
  #stored = false; // the data is what was kept from another time
  #heard = new Map(); // app -> when the stream last brought a line of it
  #open = false;
  #alive = Date.now(); // when the relay was last known to be there

  /**
   * `parts` are elements: the list `bots` and the text `lost`. `outside` has functions: `tap(app)`, and
   * `worst({ tone, word, app })`, which is told of the worst state whenever something changes.
   */
  constructor({ parts, outside }) {
    this.#parts = parts;
    this.#outside = outside;
    setInterval(() => this.#show(), TICK);
  }

  /** Take a summary. `received` is when it came; `stored`: it is from an earlier visit. */
  take(data, received, stored = false) {
    this.#data = data;
    this.#received = received;
    this.#stored = stored;
    this.#show();
  }

  /** Take what the stream brought: it tells that bots speak. Not what it begins with: that was said some time ago. */
  heard(lines, head) {
    const now = Date.now();
    for (const { app, id } of lines) if (app && splitId(id).seq > head) this.#heard.set(app, now);
  }

  /** Learn whether the relay is there now. */
  setOpen(open) {
    if (this.#open || open) this.#alive = Date.now();
    this.#open = open;
    this.#show();
  }

  /** What a bot's line says: { word, tone, note }. */
  #stateOf(app) {
    const crash = this.#data.crashes.find((one) => one.app === app.app);
    if (app.awaited) return { word: "NOT BACK YET", tone: "warn", note: "the relay was restarted" };
    if (app.state === "closed" && app.brief) return { word: app.last ? `DONE ${moment(app.last.timestamp)}` : "DONE", tone: "idle", note: "" };
    if (app.state === "connected" && crash) {
      return { word: "RUNNING", tone: "warn", note: `restarted after a crash at ${moment(crash.timestamp)}` };
    }
    const [word, tone] = STATES[app.state] ?? [app.state ? visible(app.state).toUpperCase() : "NOT CONNECTED", "warn"];
    const at = app.state === "crashed" ? crash?.timestamp : app.state === "closed" || app.state === "gone" ? app.last?.timestamp : null;
    return { word: at ? `${word} ${moment(at)}` : word, tone, note: "" };
  }

  #age(app, now) {
    const last = app.last ? this.#received - (Date.parse(this.#data.until) - Date.parse(app.last.timestamp)) : 0;
    const newest = Math.max(last, this.#heard.get(app.app) ?? 0);
    if (!newest) return "has said nothing since";
    return now - newest < JUST_NOW ? "spoke just now" : `spoke ${span(now - newest)} ago`;
  }

  #show() {
    const now = Date.now();
    const { bots, lost } = this.#parts;
    const known = this.#open && !this.#stored;
    const blind = now - this.#alive;
    setText(lost, this.#stored && !this.#open ? `as of ${moment(this.#received)}: state unknown now`
      : this.#open || !this.#data ? "" : `cannot see the ${this.#data.apps.length > 1 ? "bots" : "bot"} for ${span(blind)}: state unknown`);
    lost.hidden = !lost.textContent;
    if (!this.#data) {
      this.#outside.worst({ tone: "unknown", word: "", app: "" });
      return;
    }
    const states = this.#data.apps.map((app) => {
      const state = this.#stateOf(app);
      return { app: app.app, age: this.#age(app, now), ...state, tone: known ? state.tone : "unknown" };
    }).sort((a, b) => TONES.indexOf(b.tone) - TONES.indexOf(a.tone) || (a.app < b.app ? -1 : 1));
    redraw(bots, JSON.stringify(states.map(({ app }) => app)), () => states.length
      ? states.map(({ app }) => this.#build(app)) : [element("li", "none", "No bot has connected yet.")]);
    states.forEach((state, i) => {
      const face = bots.children[i].firstChild;
      bots.children[i].dataset.tone = state.tone;
      setText(face.children[1], known ? state.word : `was ${state.word}`);
      setText(face.children[2], state.age);
      setText(face.children[3], state.note);
    });
    const worst = states.reduce((a, b) => (TONES.indexOf(b.tone) > TONES.indexOf(a.tone) ? b : a),
      { tone: known && states.some(({ tone }) => tone === "good") ? "good" : "unknown", word: "", app: "" });
    this.#outside.worst(worst);
  }

  #build(app) {
    const item = element("li", "bot");
    const face = button("", undefined, () => this.#outside.tap(app));
    face.title = `show only ${app}, or all again`;
    face.append(element("bdi", "name", visible(app)), element("b", "state"), element("span", "age"), element("span", "note"));
    item.append(face);
    return item;
  }
}
