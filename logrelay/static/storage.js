/**
 * What outlives a reload, and where it is kept: in the tab, or on this phone for good.
 *
 * Owns: the names, and the rule that whatever was logged is kept no longer than the token: on the phone only when the
 * token is remembered there or none is needed. It must not know what a value is for, nor touch an element.
 * Read `static/login.js` next.
 */

const TOKEN = "logrelay.token";
const WORKED = "logrelay.worked";
const SEEN = "logrelay.seen";
const LAST = "logrelay.last";
const NOTIFY = "logrelay.notify";

export class PageStorage {
  #tab;
  #phone;

  /** `tab` and `phone` are sessionStorage and localStorage; a browser may refuse to store in either. */
  constructor({ tab, phone }) {
    this.#tab = tab;
    this.#phone = phone;
  }

  /** The token to begin with, or null. */
  get token() {
    return this.#get(this.#tab, TOKEN) ?? this.#get(this.#phone, TOKEN);
  }

  get remembered() {
    return this.#get(this.#phone, TOKEN) !== null;
  }

  saveToken(token, remember) {
    this.#set(this.#tab, TOKEN, token);
    this.#set(this.#phone, TOKEN, remember ? token : null);
    this.#set(this.#phone, LAST, null);
  }

  /** Forget the token and everything that came with it, but not what was seen. */
  forgetToken() {
    for (const place of [this.#tab, this.#phone]) [TOKEN, WORKED, LAST].forEach((key) => this.#set(place, key, null));
  }

  /** Whether the token in use has opened the log before: if it is unknown now, somebody took it back. */
  get worked() {
    return this.token !== null && this.#get(this.#place, WORKED) === this.token.slice(-4);
  }

  noteWorked() {
    if (this.token !== null) this.#set(this.#place, WORKED, this.token.slice(-4));
  }

  /** { id, at }: the last line that was seen and when; null before the first time. */
  get seen() {
    return this.#json(this.#phone, SEEN);
  }

  saveSeen(seen) {
    this.#set(this.#phone, SEEN, JSON.stringify(seen));
  }

  /** The last summary that was shown, for when none can be had; null when there is none. */
  get last() {
    return this.#json(this.#place, LAST);
  }

  saveLast(last) {
    this.#set(this.#place, LAST, JSON.stringify(last));
  }

  get notify() {
    return this.#get(this.#phone, NOTIFY) === "yes";
  }

  saveNotify(wanted) {
    this.#set(this.#phone, NOTIFY, wanted ? "yes" : null);
  }

  get #place() {
    return this.token === null || this.remembered ? this.#phone : this.#tab;
  }

  #get(place, key) {
    try {
      return place.getItem(key);
    } catch {
      return null;
    }
  }

  #json(place, key) {
    try {
      return JSON.parse(this.#get(place, key));
    } catch {
      return null;
    }
  }

  #set(place, key, value) {
    try {
      if (value === null) place.removeItem(key);
      else place.setItem(key, value);
    } catch { /* full, or refused: the page works without */ }
  }
}
