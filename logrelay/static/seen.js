/**
 * Since you looked: what went wrong behind the last line that was seen, in a few words, the title and the badge.
 *
 * Owns: these words, and the button that says "seen". It must not know how the counts came about, nor where the last
 * look is kept. Read `static/problems.js` next.
 */

import { button, element, redraw, setText } from "./dom.js";
import { count, moment, shortError, visible } from "./format.js";
import { totals } from "./summary.js";

/** Groups of problems that are named on the first screen. */
const NAMED = 3;

export class Seen {
  #parts;
  #outside;
  #worst = { tone: "unknown", word: "", app: "" };
  #bad = 0;

  /**
   * `parts` are elements: `since` (text), `seen` (button), `top` (a list), `tab` (the text of the tab of problems).
   * `outside` has functions: `see()` marks all as seen, `open(problem)` shows the lines of one, `title(text)` and
   * `badge(number)` tell the browser.
   */
  constructor({ parts, outside }) {
    this.#parts = parts;
    this.#outside = outside;
    parts.seen.onclick = () => outside.see();
  }

  /** Take a summary (`narrowed`), the last look or null, and how much is bad at all bots: the title and the badge say that. */
  take(data, looked, allBad) {
    const { since, seen, top, tab } = this.#parts;
    const { critical, errors, warnings, crashes, gaps, bad } = totals(data);
    const words = [];
    if (crashes) words.push(count(crashes, "crash", "crashes"));
    if (critical) words.push(`${critical.toLocaleString("en")} critical`);
    if (errors) words.push(count(errors, "error"));
    if (warnings) words.push(count(warnings, "warning"));
    if (gaps) words.push(count(gaps, "gap"));
    if (!words.length) words.push("nothing went wrong");
    if (data.elsewhere) words.push(`${count(data.elsewhere, "problem")} of other bots`);
    const from = looked ? `since ${moment(looked.at)}` : "last 24 h";
    setText(since, `${from}: ${words.join(" \u00b7 ")}`);
    since.classList.toggle("bad", bad > 0);
    seen.hidden = (!bad && !warnings) || data.elsewhere > 0; // it would hide what is not shown
    const named = data.problems.filter((problem) => problem.level === "ERROR").slice(0, NAMED);
    redraw(top, JSON.stringify(named.map(({ group, count: n }) => [group, n])), () => named.map((problem) => this.#build(problem)));
    top.hidden = !named.length;
    setText(tab, bad || warnings ? `Problems ${(bad + warnings).toLocaleString("en")}` : "Problems");
    this.#bad = allBad;
    this.#tell();
  }

  /** Learn which bot is the worst, for the title. */
  setWorst(worst) {
    this.#worst = worst;
    this.#tell();
  }

  #build(problem) {
    const item = element("li");
    const face = button(problem.severity ?? problem.level, undefined, () => this.#outside.open(problem));
    face.append(element("bdi", "message", visible(problem.message)),
      element("span", "times", problem.count > 1 ? `\u00d7${problem.count.toLocaleString("en")}` : problem.severity ? "critical" : ""));
    if (problem.exception) face.append(element("bdi", "reason", visible(shortError(problem.exception))));
    item.append(face);
    return item;
  }

  #tell() {
    const { word, app } = this.#worst;
    this.#outside.title(`${this.#bad ? `(${this.#bad.toLocaleString("en")}) ` : ""}${word ? `${word} ${visible(app)} \u00b7 ` : ""}logrelay`);
    this.#outside.badge(this.#bad);
  }
}
