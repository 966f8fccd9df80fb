/**
 * One line in full: why first, then every value with what can be done with it, and what can be done with the line.
 *
 * Owns: the sheet, the order of a traceback, and which fields a filter can be made of. It must not know filters or the
 * list: what is wanted goes to the functions that are given. Read `static/clipboard.js` next.
 */

import { button, element } from "./dom.js";
import { fullTime, TRACEBACKS, valueText, visible } from "./format.js";
import { globOf } from "./filters.js";
import { levelOf, reasonOf } from "./rows.js";

/** Characters of a condition that the relay accepts. */
const MAX_CONDITION = 256;
/** What stands between the tracebacks of a chain of exceptions. */
const CHAINED = /\n+(?:During handling of the above exception, another exception occurred:|The above exception was the direct cause of the following exception:)\n+/;

/** A traceback from its end: what happened, then the frames, the last one first; before them, what it was caused by. */
export function newestFirst(traceback) {
  return traceback.trimEnd().split(CHAINED).reverse().map((part, i) => {
    const lines = part.split("\n");
    const start = lines.findIndex((line) => /^Traceback \(most recent call last\)/.test(line));
    if (start < 0) return part;
    const frames = [];
    let end = start + 1;
    for (; end < lines.length && /^\s/.test(lines[end]); end += 1) {
      if (/^ {2}File "/.test(lines[end]) || frames.length === 0) frames.push([]);
      frames.at(-1).push(lines[end]);
    }
    const what = [...lines.slice(0, start), ...lines.slice(end)].join("\n");
    return [i ? `caused by: ${what}` : what, ...frames.reverse().map((frame) => frame.join("\n"))].join("\n");
  }).join("\n\n");
}

export class DetailSheet {
  #dialog;
  #outside;
  #line = null;

  /**
   * `dialog` is an element, in it `.sheet`. `outside` has functions: `only(kind, value)` and `not(key, value)` make
   * filters, `around(line)`, `follow(key, value)`, `copy(text)` (resolves to whether it could), `share(line)` or null,
   * `link(line)` (the address of the line), `orderFields()` and `onClose()`.
   */
  constructor({ dialog, outside }) {
    this.#dialog = dialog;
    this.#outside = outside;
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      outside.onClose();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && outside.onClose());
  }

  /** The line that is open, or null. */
  get line() {
    return this.#line;
  }

  show(line) {
    this.#line = line;
    this.#dialog.replaceChildren(this.#build(line));
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#dialog.firstChild.scrollTop = 0;
    this.#dialog.querySelector("h2").focus();
  }

  close() {
    this.#line = null;
    if (this.#dialog.open) this.#dialog.close();
  }

  #build(line) {
    const sheet = element("div", "sheet");
    const level = levelOf(line);
    const head = element("div", "sheethead");
    const title = element("h2", "", visible(line.message) || "(no message)");
    title.tabIndex = -1;
    title.id = "sheettitle";
    head.append(title, button("close", "close", () => this.#outside.onClose()));
    sheet.append(head);
    const reason = reasonOf(line);
    if (reason) sheet.append(element("p", `why ${level}`, visible(reason)));
    const facts = element("p", "facts", `${level} \u00b7 ${fullTime(line.timestamp)}`);
    sheet.append(facts, this.#buildActions(line));
    for (const key of TRACEBACKS) {
      const value = line.context[key];
      if (typeof value === "string") sheet.append(element("h3", "", key), element("pre", "trace", visible(newestFirst(value))));
    }
    const list = element("ul", "values");
    const value = (name, given, only) => list.append(this.#buildValue(name, given, only));
    value("source", line.source, line.source !== "logrelay" && ["source", globOf(line.source)]);
    if (line.app) value("app", line.app, ["app", globOf(line.app)]);
    value("message", line.message, line.message && line.message.length <= MAX_CONDITION && ["text", line.message]);
    for (const [key, given] of Object.entries(line.context)) {
      if (TRACEBACKS.includes(key) && typeof given === "string") continue;
      // Numbers cannot be asked for: 1.0 and 1 are the same here, and not the same to the relay.
      const text = typeof given === "string" || typeof given === "boolean" ? `${key}=${given}` : "";
      value(key, given, text && text.length <= MAX_CONDITION && !/["\0=]/.test(key) && ["where", text]);
    }
    if (line.run) value("run", line.run, ["run", line.run]);
    if (line.edge) value("edge", line.edge, ["edge", globOf(line.edge)]);
    if (line.host) value("host", line.host, null);
    value("id", line.id, null);
    sheet.append(list);
    return sheet;
  }

  #buildActions(line) {
    const actions = element("div", "actions");
    const { around, follow, copy, share, link, orderFields } = this.#outside;
    actions.append(button("", "around this", () => around(line)));
    const key = orderFields().find((field) => ["string", "boolean"].includes(typeof line.context[field]));
    if (key) actions.append(button("", "follow this order", () => follow(key, line.context[key])));
    const copying = (text, what) => {
      const copier = button("", text, async () => {
        copier.textContent = (await copy(what())) ? "copied" : "could not copy";
      });
      return copier;
    };
    actions.append(copying("copy", () => JSON.stringify(line)), copying("link", () => link(line)));
    if (share) actions.append(button("", "share", () => share(line)));
    return actions;
  }

  /** One value: a row that opens what can be done with it. */
  #buildValue(name, given, only) {
    const item = element("li");
    const text = typeof given === "object" && given !== null ? JSON.stringify(given, null, 2) : valueText(given);
    const choices = element("div", "choices");
    choices.hidden = true;
    const face = button("value", undefined, () => {
      choices.hidden = !choices.hidden;
      face.setAttribute("aria-expanded", String(!choices.hidden));
    });
    face.setAttribute("aria-expanded", "false");
    face.append(element("span", "key", visible(name)), element("bdi", "given", visible(text)));
    if (only) choices.append(button("", "only these", () => this.#outside.only(...only)));
    if (name !== "id") choices.append(button("", "not these", () => this.#outside.not(name, given)));
    const copier = button("", "copy", async () => {
      copier.textContent = (await this.#outside.copy(valueText(given))) ? "copied" : "could not copy";
    });
    choices.append(copier);
    item.append(face, choices);
    return item;
  }
}
