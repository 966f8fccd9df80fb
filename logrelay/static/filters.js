/**
 * What to see: the level, the text that is searched, the conditions that were tapped, and what is left out.
 *
 * Owns: the filter, its controls, and how it is written as the parameters of an address. It must not know the
 * connection, the list, or where an address is kept. Read `static/detail.js` next.
 */

import { LEVELS } from "./client.js";
import { button, element } from "./dom.js";
import { valueText, visible } from "./format.js";

/** Milliseconds after the last keystroke before the relay is asked. */
const TYPING = 300;
/** Conditions the relay is asked for, of which all must hold. */
const CONDITIONS = ["app", "source", "run", "edge", "where"];
/** What the relay is not asked for: the page leaves these lines out by itself. */
const WITHOUT = "not";
/** Every level that may be asked for; the last one has no button. */
const ASKED_LEVELS = [...LEVELS, "CRITICAL"];

/** A name as a glob for it alone. A comma would end the glob, so "any character" stands for it. */
export function globOf(name) {
  return name.replace(/[*?[]/g, "[$&]").replaceAll(",", "?");
}

/** Whether a glob, of those that the relay takes, matches a whole name. */
export function globMatches(glob, name) {
  const pattern = glob.replace(/\[([!^]?)([^\]]+)\]|[*?]|[\\^$.|+(){}[\]]/g, (found, not, set) => (set
    ? `[${not && "^"}${set.replace(/[\\^[\]]/g, "\\$&")}]` : { "*": ".*", "?": "." }[found] ?? `\\${found}`));
  try {
    return new RegExp(`^${pattern}$`, "su").test(name);
  } catch { // a range that is none
    return false;
  }
}

/** Read a filter from the parameters of an address. */
export function readFilter(parameters) {
  const level = levelIn(parameters);
  const filter = { level: ASKED_LEVELS.includes(level) ? level : LEVELS[0] };
  filter.text = parameters.get("text") ?? "";
  for (const kind of [...CONDITIONS, WITHOUT]) filter[kind] = parameters.getAll(kind);
  return filter;
}

const levelIn = (parameters) => (parameters.get("level") ?? LEVELS[0]).toUpperCase();

/** What of an address means nothing here, in words; `others` are the names that are no filter's. */
export function remarksOn(parameters, others) {
  const remarks = [];
  if (!ASKED_LEVELS.includes(levelIn(parameters))) {
    remarks.push(`\u201c${visible(parameters.get("level"))}\u201d is no level, so all are shown; there is ${ASKED_LEVELS.join(", ")}.`);
  }
  const known = ["level", "text", ...CONDITIONS, WITHOUT, ...others];
  for (const name of new Set(parameters.keys())) {
    if (!known.includes(name)) remarks.push(`\u201c${visible(name)}\u201d in the address means nothing here.`);
  }
  return remarks;
}

/** Write a filter as the parameters of an address. */
export function writeFilter(filter) {
  const parameters = new URLSearchParams();
  if (filter.level !== LEVELS[0]) parameters.append("level", filter.level);
  if (filter.text) parameters.append("text", filter.text);
  for (const kind of [...CONDITIONS, WITHOUT]) filter[kind].forEach((value) => parameters.append(kind, value));
  return parameters;
}

/** A filter that leaves nothing out. */
export const NO_FILTER = Object.freeze(readFilter(new URLSearchParams()));

export class Filters {
  #parts;
  #onChange;
  #filter = NO_FILTER;
  #typing = 0;

  /**
   * `parts` are elements: the form `controls`, in it `levels` (radio buttons), `text` (input) and `matches`, and the list
   * `conditions`. `onChange(filter, typed)` is called when somebody wants another one; it comes back with show().
   */
  constructor({ parts, onChange }) {
    this.#parts = parts;
    this.#onChange = onChange;
    const { controls, levels, text } = parts;
    text.oninput = () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#typed(), TYPING);
    };
    controls.onsubmit = (event) => {
      event.preventDefault();
      this.#typed();
      text.blur(); // put the phone's keyboard away
    };
    levels.onchange = (event) => this.#change({ level: event.target.value });
  }

  /** The filter as it is. */
  get current() {
    return this.#filter;
  }

  /** The filter as the relay takes it. */
  get asked() {
    const { level, text, app, source, run, edge, where } = this.#filter;
    return { level: level === LEVELS[0] ? "" : level, text, app, source, run, edge, where };
  }

  /** Whether any line is left out. */
  get active() {
    return writeFilter(this.#filter).size > 0;
  }

  /** Make this the filter, and show it. */
  show(filter) {
    this.#filter = filter;
    const { levels, text, conditions } = this.#parts;
    for (const input of levels.querySelectorAll("input")) input.checked = input.value === filter.level;
    if (text.value.trim() !== filter.text) text.value = filter.text;
    const chips = [...CONDITIONS, WITHOUT].flatMap((kind) => filter[kind].map((value) => this.#buildCondition(kind, value)));
    if (filter.text) chips.push(this.#buildChip(`\u201c${filter.text}\u201d`, () => this.#change({ text: "" })));
    if (filter.level !== LEVELS[0]) chips.push(this.#buildChip(`${filter.level} and above`, () => this.#change({ level: LEVELS[0] })));
    conditions.replaceChildren(...chips);
  }

  /** Ask for one condition more; `kind` is "app", "source", "run", "edge" or "where", `value` as the relay takes it. */
  add(kind, value) {
    const values = this.#filter[kind];
    this.#change({ [kind]: values.includes(value) ? values : [...values, value] });
  }

  /** Search a text. */
  search(text) {
    this.#change({ text });
  }

  /** Leave out the lines of which `key` ("source", "app", "message" or a context field) has this value. */
  leaveOut(key, value) {
    this.add(WITHOUT, `${key}=${valueText(value)}`);
  }

  /** Show one bot only, or all when it was the only one. */
  toggleApp(app) {
    const only = globOf(app);
    const { app: now } = this.#filter;
    this.#change({ app: now.length === 1 && now[0] === only ? [] : [only] });
  }

  /** Whether lines of this bot are asked for. */
  passesApp(app) {
    const globs = this.#filter.app.flatMap((given) => given.split(",")).map((glob) => glob.trim()).filter(Boolean);
    return !globs.length || globs.some((glob) => globMatches(glob, app));
  }

  /** Whether the page leaves the line out by itself. */
  isExcluded(line) {
    return this.#filter[WITHOUT].some((condition) => {
      const at = condition.indexOf("=");
      const [key, value] = [condition.slice(0, at), condition.slice(at + 1)];
      const own = ["source", "app", "message", "run", "edge", "host"].includes(key) && !Object.hasOwn(line.context, key);
      const found = own ? line[key] : line.context[key];
      return found !== undefined && valueText(found) === value;
    });
  }

  #change(changes, typed = false) {
    this.#onChange({ ...this.#filter, ...changes }, typed);
  }

  #typed() {
    clearTimeout(this.#typing);
    const text = this.#parts.text.value.trim();
    if (text !== this.#filter.text) this.#change({ text }, true);
  }

  #buildCondition(kind, value) {
    const shown = kind === WITHOUT ? `not ${value}` : kind === "where" ? value : `${kind}=${value}`;
    return this.#buildChip(shown, () => this.#change({ [kind]: this.#filter[kind].filter((other) => other !== value) }));
  }

  #buildChip(text, onClick) {
    const item = element("li");
    const chip = button("", `${text} \u00d7`, onClick);
    chip.setAttribute("aria-label", `remove the filter ${text}`);
    item.append(chip);
    return item;
  }
}
