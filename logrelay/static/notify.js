/**
 * Notifications of errors and crashes while the page lives, for who asked for them.
 *
 * Owns: the permission, and that each problem is told once. It must not know how problems are found.
 * Read `static/keys.js` next.
 */

import { moment, visible } from "./format.js";

/** Notifications of one answer; more would only hide each other. */
const AT_ONCE = 3;

export class Notifications {
  #storage;
  #isHidden;
  #told = null; // the head of the last summary that was looked at
  #shown = new Map(); // group -> count, of what was told or seen

  /** `storage` is a PageStorage; `isHidden()`: nobody looks at the page, so it has to call. */
  constructor({ storage, isHidden }) {
    this.#storage = storage;
    this.#isHidden = isHidden;
  }

  /** Whether this browser can, here: only where the context is secure. */
  get possible() {
    return typeof Notification === "function" && isSecureContext;
  }

  get wanted() {
    return this.possible && this.#storage.notify && Notification.permission === "granted";
  }

  /** Ask for the permission, or give it up. Resolves to whether they come from now on. Call it from a click. */
  async toggle() {
    const wanted = !this.wanted && (await Notification.requestPermission()) === "granted";
    this.#storage.saveNotify(wanted);
    return wanted;
  }

  /** Take a summary; what is new in it since the last one is told. */
  take(data) {
    const first = this.#told === null;
    this.#told = data.head;
    const news = [];
    for (const crash of data.crashes) {
      if (!this.#shown.has(crash.id)) news.push([`${crash.app ?? "A bot"} crashed`, `${moment(crash.timestamp)} ${crash.message}`, crash.id]);
      this.#shown.set(crash.id, 1);
    }
    for (const problem of data.problems.filter(({ level }) => level === "ERROR")) {
      if (problem.count > (this.#shown.get(problem.group) ?? 0)) {
        news.push([problem.message, `${problem.app ?? ""} ${moment(problem.last.timestamp)} ${problem.exception ?? ""}`, problem.last.id]);
      }
      this.#shown.set(problem.group, problem.count);
    }
    if (first || !this.wanted || !this.#isHidden()) return;
    for (const [title, body, id] of news.slice(0, AT_ONCE)) this.#show(visible(title), visible(body), id);
  }

  async #show(title, body, id) {
    const options = { body, tag: id, icon: "static/icon-192.png", data: id };
    try {
      const worker = await navigator.serviceWorker?.getRegistration();
      if (worker) await worker.showNotification(title, options); // Android knows no other way
      else new Notification(title, options);
    } catch { /* the permission went meanwhile */ }
  }
}
