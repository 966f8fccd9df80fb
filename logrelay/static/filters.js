/**
 * What to see: the level buttons, the search field, and the conditions that were tapped.
 *
 * Owns: the filter, its controls, and how it is written as the parameters of an address, so that it can be kept and
 * passed on. It must not know the connection, the list, or where an address is kept. Read `static/storage.js` next.
 */

import { LEVELS } from "./client.js";
import { element } from "./dom.js";

/** Milliseconds after the last keystroke before the relay is asked. */
const TYPING = 300;

export class Filters {
  #parts; // the elements, see the constructor
  #save;
  #onChange;
  #filter; // its level is one of LEVELS; the lowest of them is no condition
  #typing = 0;

  /**
   * `parts` are elements: the form `controls`, in it `levels` (buttons with data-level) and `text` (input), and the
   * list `conditions`. `asked` (URLSearchParams) is what the address asked for. `save(parameters)` is called with the
   * filter as it is now and whenever it changes, `onChange(filter)` only when it changes.
   */
  constructor({ parts, asked, save, onChange }) {
    this.#parts = parts;
    this.#save = save;
    this.#onChange = onChange;
    this.#filter = {
      level: LEVELS.includes(asked.get("level")) ? asked.get("level") : LEVELS[0],
      text: asked.get("text") ?? "",
      source: asked.getAll("source"),
      app: asked.getAll("app"),
      where: asked.getAll("where"),
    };
    const { controls, levels, text } = parts;
    text.oninput = () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#search(), TYPING);
    };
    controls.onsubmit = (event) => {
      event.preventDefault();
      this.#search();
      text.blur(); // put the phone's keyboard away
    };
    levels.onclick = (event) => {
      const level = event.target.dataset.level;
      if (level && level !== this.#filter.level) this.#change({ level });
    };
    this.#show();
  }

  /** The filter as the client takes it. */
  get current() {
    return { ...this.#filter, level: this.#filter.level === LEVELS[0] ? "" : this.#filter.level };
  }

  /** Whether any line is left out. */
  get active() {
    return Object.values(this.current).some((value) => value.length > 0);
  }

  /** Ask for one condition more; `kind` is "source", "app" or "where". */
  add(kind, value) {
    const values = this.#filter[kind];
    this.#change({ [kind]: values.includes(value) ? values : [...values, value] });
  }

  #change(changes) {
    this.#filter = { ...this.#filter, ...changes };
    this.#show();
    this.#onChange(this.current);
  }

  #search() {
    clearTimeout(this.#typing);
    const text = this.#parts.text.value.trim();
    if (text !== this.#filter.text) this.#change({ text });
  }

  #show() {
    const { levels, text, conditions } = this.#parts;
    const lowest = LEVELS.indexOf(this.#filter.level);
    for (const button of levels.children) {
      button.setAttribute("aria-pressed", String(LEVELS.indexOf(button.dataset.level) >= lowest));
    }
    if (text.value.trim() !== this.#filter.text) text.value = this.#filter.text;
    conditions.replaceChildren(...["app", "source", "where"].flatMap((kind) =>
      this.#filter[kind].map((value) => this.#buildCondition(kind, value))));
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(this.current)) {
      [value].flat().forEach((one) => one && parameters.append(name, one));
    }
    this.#save(parameters);
  }

  #buildCondition(kind, value) {
    const chip = element("button", "", `${kind === "where" ? value : `${kind}=${value}`} \u00d7`);
    chip.type = "button";
    chip.setAttribute("aria-label", `remove the filter ${value}`);
    chip.onclick = () => this.#change({ [kind]: this.#filter[kind].filter((other) => other !== value) });
    const item = element("li");
    item.append(chip);
    return item;
  }
}
