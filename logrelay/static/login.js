/**
 * The token: the one in use, and the form that asks for another.
 *
 * Owns: both. It must not know when the relay wants a token, nor where one is kept. Read `static/status.js` next.
 */

export class Login {
  #form;
  #token;

  /** `form` and `input` are elements, `token` the one to begin with or null; `onToken(token)` gets an entered one. */
  constructor({ form, input, token, onToken }) {
    this.#form = form;
    this.#token = token;
    form.onsubmit = (event) => {
      event.preventDefault();
      this.#token = input.value.trim();
      input.value = "";
      this.hide();
      onToken(this.#token);
    };
  }

  /** The token in use; null when there is none. */
  get token() {
    return this.#token;
  }

  ask() {
    this.#form.hidden = false;
  }

  hide() {
    this.#form.hidden = true;
  }
}
