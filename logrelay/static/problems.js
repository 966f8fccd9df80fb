/**
 * The problems: what is the same but for its numbers, once, with how often and when; crashes and gaps among them.
 *
 * Owns: the list and its order. It must not know what a tap leads to. Read `static/alerts.js` next.
 */

import { button, element, redraw, setText } from "./dom.js";
import { count, moment, shortError, visible } from "./format.js";

/** How a cause of a gap is said. */
const LOST_LINES = (gap) => (gap.count ? `${count(gap.count, "line")} missing` : "lines are missing");

export class Problems {
  #list;
  #more;
  #outside;

  /** `list` and `more` are elements; `outside` has functions: `open(problem)` shows its lines, `around(id)` what surrounds one. */
  constructor({ list, more, outside }) {
    this.#list = list;
    this.#more = more;
    this.#outside = outside;
  }

  take(data) {
    const key = JSON.stringify([data.problems.map((one) => [one.group, one.count]), data.crashes.map((crash) => crash.id), data.gaps.map((gap) => gap.id)]);
    redraw(this.#list, key, () => this.#build(data));
    const left = data.more_problems + data.more_crashes + data.more_gaps;
    const words = [];
    if (left) words.push(`and ${left.toLocaleString("en")} more`);
    if (data.elsewhere) words.push(`only the bots of the filter are shown; there ${data.elsewhere === 1 ? "is" : "are"} ${count(data.elsewhere, "problem")} of other bots`);
    this.#more.hidden = !words.length;
    setText(this.#more, words.join("; "));
  }

  #build(data) {
    const items = [];
    for (const crash of data.crashes) {
      items.push(this.#item("crash", crash.app, crash.app ?? "a bot", "", crash.message, moment(crash.timestamp), () => this.#outside.around(crash.id)));
    }
    for (const problem of data.problems) {
      const { first, last, count: n } = problem;
      const [from, to] = [moment(first.timestamp), moment(last.timestamp)];
      const when = from === to ? to : `${from} to ${to}`;
      items.push(this.#item(problem.severity ?? problem.level, problem.app, problem.message, n > 1 ? `\u00d7${n.toLocaleString("en")}` : "",
        problem.exception === null ? problem.source : shortError(problem.exception), when, () => this.#outside.open(problem)));
    }
    for (const gap of data.gaps) {
      items.push(this.#item("gap", gap.app, LOST_LINES(gap), "", gap.cause, moment(gap.timestamp), () => this.#outside.around(gap.id)));
    }
    return items.length ? items : [element("li", "none", "Nothing went wrong.")];
  }

  #item(kind, app, title, times, reason, when, onClick) {
    const item = element("li");
    const face = button(`problem ${kind}`, undefined, onClick);
    const first = element("span", "first");
    first.append(element("b", "kind", kind === "gap" ? "GAP" : kind === "crash" ? "CRASH" : kind), element("bdi", "message", visible(title)), element("b", "times", times));
    face.append(first, element("bdi", "reason", visible(reason ?? "")), element("span", "when", `${app ? `${visible(app)} \u00b7 ` : ""}${when}`));
    item.append(face);
    return item;
  }
}
