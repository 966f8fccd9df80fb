/**
 * The token: the form that asks for one, and why it asks.
 *
 * Owns: the four reasons and their words. It must not know the connection; where a token is kept is the storage's.
 * Read `static/link.js` next.
 */

const WORDS = {
  missing: "This relay needs a token. `logrelay pair` on its machine shows one as a code to scan, with a link that brings it along.",
  wrong: "The relay does not know this token. Was all of it copied? `logrelay token list` shows which there are.",
  expired: "This token has expired. `logrelay pair` makes a new one.",
  revoked: "This token is no longer good: it opened the log before, and was revoked or changed since.",
};

export class Login {
  #parts;
  #storage;

  /**
   * `parts` are elements: the form `login`, in it `reason`, `token` (input) and `remember` (checkbox). `storage` is a
   * PageStorage. `onToken()` is called when one was entered, which is in the storage then.
   */
  constructor({ parts, storage, onToken }) {
    this.#parts = parts;
    this.#storage = storage;
    const { login, token, remember } = parts;
    login.onsubmit = (event) => {
      event.preventDefault();
      storage.saveToken(token.value.trim(), remember.checked);
      token.value = "";
      this.hide();
      onToken();
    };
  }

  /** Whether a token is being asked for: until it comes, further questions would be further wrong tokens. */
  get asking() {
    return !this.#parts.login.hidden;
  }

  /** Ask for a token; `answer` is what the relay said to the one that was shown. */
  ask(answer = "") {
    const { login, reason, token, remember } = this.#parts;
    const why = this.#storage.token === null ? "missing" : /the token has expired/.test(answer) ? "expired"
      : this.#storage.worked ? "revoked" : "wrong";
    reason.textContent = WORDS[why];
    login.dataset.reason = why;
    if (!login.hidden) return;
    remember.checked = this.#storage.remembered;
    login.hidden = false;
    token.focus();
  }

  hide() {
    this.#parts.login.hidden = true;
  }
}
