/**
 * Questions to the relay over plain HTTP: pages of lines, the summary, the names that trades have.
 *
 * Owns: the addresses, the token on them, and what goes wrong with an answer. It must not know who asks, nor keep an
 * answer. Read `static/storage.js` next.
 */

/** What the relay answered instead of what was asked for. `status` is 0 when nothing came at all. */
export class RelayError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Milliseconds after which a question about the state of things is given up: the answer would be old. */
const GIVEN_UP_AFTER = 8_000;

export class Relay {
  #base;
  #token;

  /** `base` (URL) is the folder of the page; `token()` returns the token in use or null. */
  constructor({ base, token }) {
    this.#base = base;
    this.#token = token;
  }

  /**
   * Get lines that pass a filter. `query` has parameters of /logs, `filter` as the client takes it. Returns the lines
   * in order, what the relay had to say in between, and `head`: how far it looked. Throws RelayError, or AbortError.
   */
  async lines(query, filter = {}, signal = undefined) {
    const answer = await this.#get("logs", { ...filter, ...query }, signal);
    const found = { lines: [], remarks: [], head: answer.headers.get("Logrelay-Head") };
    for (const text of (await answer.text()).split("\n")) {
      if (!text) continue;
      const line = JSON.parse(text);
      (line.type === "log" ? found.lines : found.remarks).push(line);
    }
    return found;
  }

  /** Get what happened behind an id or since a time. */
  async summary(query) {
    const answer = await this.#get("summary", query, AbortSignal.timeout(GIVEN_UP_AFTER));
    return answer.json();
  }

  /** Get how the alerts are. */
  async alerts() {
    return (await this.#get("alerts", {}, AbortSignal.timeout(GIVEN_UP_AFTER))).json();
  }

  /** Get the table that says which events and fields are a trade's. */
  async tradeNames() {
    return (await this.#get("trade-names", {})).json();
  }

  /** Return the lines as they came, for a file. */
  async export(query, filter) {
    return (await this.#get("logs", { ...filter, ...query })).text();
  }

  /** Ask whether this page may ask; returns the status and what the relay said. Throws when nothing answers. */
  async probe() {
    const answer = await fetch(this.#url("logs", { limit: 1 }), this.#options(AbortSignal.timeout(GIVEN_UP_AFTER)));
    return { status: answer.status, text: answer.ok ? "" : await answer.text() };
  }

  #url(path, query) {
    const url = new URL(path, this.#base);
    for (const [name, given] of Object.entries(query)) {
      for (const value of [given].flat()) {
        if (value !== "" && value !== undefined && value !== null) url.searchParams.append(name, value);
      }
    }
    return url;
  }

  #options(signal) {
    const token = this.#token();
    return { signal, cache: "no-store", headers: token ? { Authorization: `Bearer ${token}` } : {} };
  }

  async #get(path, query, signal) {
    let answer;
    try {
      answer = await fetch(this.#url(path, query), this.#options(signal));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new RelayError(0, "The relay does not answer.");
    }
    if (answer.ok) return answer;
    const text = await answer.text();
    let message = text.trim();
    try {
      message = JSON.parse(text).message ?? message;
    } catch { /* refusals are plain text */ }
    throw new RelayError(answer.status, message);
  }
}
