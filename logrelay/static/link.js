/**
 * What is wrong between the page and the relay, in words, and only while something is; and what is to be said of the place.
 *
 * Owns: the line that says it, and the question over HTTP that finds it out: a script is not told why a WebSocket was
 * refused, but the same question over HTTP is answered. It must not know the stream. Read `static/dom.js` next.
 */

export class Link {
  #element;
  #trouble = "";
  #remark = "";
  #probe;
  #login;
  #isOpen;

  /** `element` shows the words, `probe()` is Relay.probe, `login` a Login; `isOpen()`: the stream came back meanwhile. */
  constructor({ element, probe, login, isOpen }) {
    this.#element = element;
    this.#probe = probe;
    this.#login = login;
    this.#isOpen = isOpen;
  }

  /** Say something; an empty text takes the last one away, and so does a connection. */
  showText(text) {
    this.#trouble = text;
    this.#show();
  }

  /** Say something about the place that is shown, until another one is. */
  showRemark(text) {
    this.#remark = text;
    this.#show();
  }

  #show() {
    this.#element.textContent = [this.#trouble, this.#remark].filter(Boolean).join(" ");
    this.#element.hidden = !this.#element.textContent;
  }

  /** The relay wants another token; `text` is what it said. */
  deny(text) {
    if (this.#isOpen()) return;
    this.showText("");
    this.#login.ask(text);
  }

  /** Find out and say why no stream opens. Never rejects. */
  async explain() {
    if (this.#login.asking) return; // each question would be answered later than the one before
    try {
      const { status, text } = await this.#probe();
      if (this.#isOpen()) return;
      if (status === 401) {
        this.deny(text);
      } else if (status === 429) {
        this.showText("Too many wrong tokens came from this address. It goes on by itself in a moment.");
      } else if (status === 403) {
        this.showText(`The relay does not let this page in: ${text.trim()}`);
      } else {
        this.showText(status === 200 ? "The relay answers, but refuses the stream: it has too many viewers, or just restarted."
          : `The relay answers, but not to this page (HTTP ${status}).`);
      }
    } catch {
      if (!this.#isOpen()) this.showText("The relay cannot be reached from here. What it keeps meanwhile will follow.");
    }
  }
}
