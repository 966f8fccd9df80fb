/**
 * What outlives a reload: the token in the tab's session storage, everything else in the address.
 *
 * Owns: where they are kept and under which names. It must not know what a parameter or the token is for, nor touch
 * an element. Read `static/login.js` next.
 */

const TOKEN_KEY = "logrelay.token";

export class PageStorage {
  #location;
  #history;
  #session;

  /**
   * The arguments are those of the window, `session` its sessionStorage. A token in the address is kept at once; the
   * first saveAddress() takes it out of the address bar. In the fragment it never even reached the server.
   */
  constructor({ location, history, session }) {
    this.#location = location;
    this.#history = history;
    this.#session = session;
    /** The parameters that the page was opened with. */
    this.asked = new URLSearchParams(location.search);
    const given = this.asked.get("token") ?? new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) this.saveToken(given);
    /** The token to begin with, or null. */
    this.token = session.getItem(TOKEN_KEY);
  }

  saveToken(token) {
    this.#session.setItem(TOKEN_KEY, token);
  }

  /** Make the parameters (URLSearchParams) the only ones in the address bar. */
  saveAddress(parameters) {
    const query = parameters.size ? `?${parameters}` : "";
    this.#history.replaceState(null, "", `${this.#location.pathname}${query}`);
  }
}
