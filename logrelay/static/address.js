/**
 * Where the page is: the tab, the filter, the place in the journal and the open sheet, as an address and a step back.
 *
 * Owns: reading and writing the address, and that the token never stays in it. It must not know what a place looks
 * like. Read `static/list.js` next.
 */

import { readFilter, remarksOn, writeFilter } from "./filters.js";

/** What `#` is followed by when the page is to open at a line. */
const LINE_ID = /^[a-z0-9.]+-[0-9]+$/;
const TABS = ["log", "problems", "trades"];

/** Take the token out of an address; null when it has none. In the fragment it never even reached the server. */
export function takeToken(location, history) {
  const query = new URLSearchParams(location.search);
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token") ?? query.get("token");
  if (token === null) return null;
  query.delete("token");
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
  return token || null;
}

export class Address {
  #location;
  #history;
  #onView;

  /** `onView(view)` is called for each step: { tab, filter, at (an id or null), sheet (an id or null), remarks (texts) }. */
  constructor({ location, history, target, onView }) {
    this.#location = location;
    this.#history = history;
    this.#onView = onView;
    target.addEventListener("popstate", () => this.#enter(this.#read()));
    target.addEventListener("hashchange", () => this.#enter(this.#read())); // a link to a line was put into the bar
    /** Where the page is. */
    this.view = this.#read();
  }

  /** Go somewhere: a step that Back undoes, unless `replace`. */
  go(changes, replace = false) {
    const view = { ...this.view, remarks: [], ...changes };
    const url = this.of(view);
    this.#history[replace ? "replaceState" : "pushState"]({ sheet: view.sheet, depth: (this.#history.state?.depth ?? 0) + (replace ? 0 : 1) }, "", url);
    this.#enter(view);
  }

  /** Undo the last step; `otherwise` is where to go when the page began here. */
  back(otherwise) {
    if (this.#history.state?.depth > 0) this.#history.back();
    else this.go(otherwise, true);
  }

  /** The address of a view, without the token. */
  of({ tab, filter, at, sheet }) {
    const query = writeFilter(filter);
    if (tab !== TABS[0]) query.append("tab", tab);
    return `${this.#location.pathname}${query.size ? `?${query}` : ""}${at ?? sheet ? `#${sheet ?? at}` : ""}`;
  }

  #read() {
    const query = new URLSearchParams(this.#location.search);
    const hash = decodeURIComponent(this.#location.hash.slice(1));
    const at = LINE_ID.test(hash) ? hash : null;
    const sheet = this.#history.state?.sheet ?? null;
    return { tab: TABS.includes(query.get("tab")) ? query.get("tab") : TABS[0], filter: readFilter(query),
      at: sheet ? this.view?.at ?? null : at, sheet, remarks: remarksOn(query, ["tab", "token"]) };
  }

  #enter(view) {
    this.view = view;
    this.#onView(view);
  }
}
