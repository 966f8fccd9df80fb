/**
 * The alerts: what the owner has been called for, which bots are silent just now, and the silencing of one.
 *
 * Owns: this part of the page, and when the relay is asked how its alerts are. Without alerts it is not there. It must
 * not know how a request travels. Read `static/trades.js` next.
 */

import { button, element, redraw, setText } from "./dom.js";
import { count, moment, shortError, visible } from "./format.js";
import { globOf } from "./filters.js";

export class Alerts {
  #parts;
  #outside;
  #apps = "";

  /**
   * `parts` are elements: `alerts` (all of it), in it `active` and `silences` (lists), `services` (text), the form
   * `silence` and its `silenceapp` and `silencefor` (selects). `outside` has functions: `ask()` is Relay.alerts,
   * `silence(app, seconds)` asks for silence about a glob, 0: for its end; `around(id)` shows a line.
   */
  constructor({ parts, outside }) {
    this.#parts = parts;
    this.#outside = outside;
    parts.silence.onsubmit = (event) => {
      event.preventDefault();
      outside.silence(globOf(parts.silenceapp.value), Number(parts.silencefor.value));
    };
  }

  /** Learn which bots there are. */
  setApps(apps) {
    const key = JSON.stringify(apps);
    if (this.#apps === key) return;
    this.#apps = key;
    const { silenceapp } = this.#parts;
    const chosen = silenceapp.value;
    silenceapp.replaceChildren(...apps.map((app) => {
      const option = element("option", "", visible(app));
      option.value = app;
      option.selected = app === chosen;
      return option;
    }));
  }

  /** Ask how they are now. A relay without them, or one that does not let this page see them, shows nothing. Never rejects. */
  async refresh() {
    try {
      this.take(await this.#outside.ask());
    } catch (error) {
      if (error.status) this.#parts.alerts.hidden = true; // not what is merely not known just now
    }
  }

  /** Take an answer of /alerts. */
  take(shown) {
    const { alerts, active, silences, services } = this.#parts;
    alerts.hidden = !shown.enabled;
    redraw(active, JSON.stringify(shown.active), () => shown.active.length
      ? shown.active.map((one) => this.#build(one)) : [element("li", "none", "No alert just now.")]);
    redraw(silences, JSON.stringify(shown.silences), () => shown.silences.map(({ app, until }) => {
      const item = element("li");
      item.append(element("span", "", `${visible(app)} is silent until ${moment(until)}`),
        button("", "end", () => this.#outside.silence(app, 0)));
      item.lastChild.setAttribute("aria-label", `end the silence of ${visible(app)}`);
      return item;
    }));
    const failing = shown.services.filter(({ error }) => error)
      .map(({ service, waiting, error }) => `${visible(service)} does not take alerts, ${waiting} wait: ${visible(error)}`);
    if (shown.heartbeat?.withheld) failing.push(`no sign of life is sent: ${visible(shown.heartbeat.withheld)}`);
    else if (shown.heartbeat?.error) failing.push(`the sign of life is not taken: ${visible(shown.heartbeat.error)}`);
    setText(services, failing.join(" \u00b7 "));
    services.hidden = !failing.length;
  }

  #build({ kind, app, active, since, last, count: times, silenced, message, reason, id, rule, level }) {
    const item = element("li");
    const lost = kind === "gap" ? count(times, "line") : times > 1 ? `\u00d7${times.toLocaleString("en")}` : "";
    const face = button(`problem ${kind === "gap" ? "gap" : level ?? "ERROR"}`, undefined, () => id && this.#outside.around(id));
    face.disabled = !id;
    const first = element("span", "first");
    first.append(element("b", "kind", active ? `${kind}, still` : kind), element("bdi", "message", visible(message)), element("b", "times", lost));
    const when = since === last ? moment(last) : `${moment(since)} to ${moment(last)}`;
    const told = [app && visible(app), when, `rule ${visible(rule)}`, silenced && "silenced"].filter(Boolean).join(" \u00b7 ");
    face.append(first, element("bdi", "reason", visible(shortError(reason))), element("span", "when", told));
    item.append(face);
    return item;
  }
}
