/**
 * What is wrong between the page and the relay, in words.
 *
 * Owns: the line that says it, and the question over HTTP that finds it out: a script is not told why a WebSocket was
 * refused, but the same question over HTTP is answered. It must not know the stream. Read `static/dom.js` next.
 */

export class Diagnosis {
  #element;
  #url;
  #login;
  #isOpen;

  /**
   * `element` shows the words, `url` (URL) is /logs, `login` a Login, which is asked for the token and, when it is
   * missing or wrong, told to ask. `isOpen()` tells whether the stream came back meanwhile.
   */
  constructor({ element, url, login, isOpen }) {
    this.#element = element;
    this.#url = url;
    this.#login = login;
    this.#isOpen = isOpen;
  }

  /** Say something; an empty text takes the last one away. */
  showText(text) {
    this.#element.textContent = text;
    this.#element.hidden = !text;
  }

  /** Find out and say why no stream opens. Never rejects. */
  async explain() {
    const { token } = this.#login;
    try {
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      const url = new URL("?limit=1", this.#url);
      const answer = await fetch(url, { method: "HEAD", headers, cache: "no-store" });
      if (answer.status === 401) {
        if (this.#login.token) this.showText("The relay does not know this token.");
        this.#login.ask();
      } else if (answer.status === 403) {
        this.showText("The relay does not let this page in. Its address has to be among the allowed origins.");
      } else {
        if (this.#isOpen()) return; // it came back while we asked
        this.showText(answer.ok ? "The relay answers, but refuses the stream: it has too many viewers, or just restarted."
          : `The relay answers, but not to this page (HTTP ${answer.status}).`);
      }
    } catch {
      if (!this.#isOpen()) this.showText("The relay cannot be reached from here. What it keeps meanwhile will follow.");
    }
  }
}
