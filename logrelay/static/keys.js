/**
 * The keyboard: which key does what, and the table that says so.
 *
 * Owns: both. It must not know what an action does. Read `static/relay.js` next.
 */

import { element } from "./dom.js";

export class Keys {
  /** `actions` maps a key (KeyboardEvent.key) to { text, run(); hidden: true keeps it out of the table }. */
  constructor({ target, table, actions }) {
    target.addEventListener("keydown", (event) => {
      const action = actions[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target.closest("input, textarea, select");
      if (typing && event.key !== "Escape") return;
      if (event.key === "Enter" && event.target.closest("button, a, label")) return;
      if (document.querySelector("dialog[open]")) return;
      event.preventDefault();
      action.run();
    });
    for (const [key, { text, hidden }] of Object.entries(actions)) {
      if (!hidden) table.append(element("dt", "", key), element("dd", "", text));
    }
  }
}
