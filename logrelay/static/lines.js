/**
 * The lines that are loaded: one stretch of those that pass the filter, without a hole, wherever in the journal it is.
 *
 * Owns: joining what the stream brings with pages that are asked for, and forgetting what is far away. It must not know
 * rows or pixels: it tells what was put at which end. Read `static/rows.js` next.
 *
 * While the stretch reaches the newest line it is live: the stream's lines go on its end. When it is elsewhere, they go
 * into `recent`, which holds every match behind `#recentAfter`, so that scrolling down can join it again: a page says
 * how far the relay looked, and if that is behind `#recentAfter`, nothing is between the page and `recent`.
 */

import { splitId } from "./client.js";

/** Lines of a page: a few screens. */
const PAGE = 200;
/** Lines that are kept at most; more are forgotten at the far end, and asked for again when they are needed. */
const MOST = 6_000;
/** While the newest line is followed nobody looks at the far end: down to so many once there are half of MOST. */
const FOLLOWED = 1_500;
/** Lines of the stream that are kept for joining it again. */
const RECENT = 2_000;

const seqOf = (line) => splitId(line.id).seq;
/** A notice that stands for older ones, under the id of another line; the older ones come with their own pages. */
const isStandIn = ({ source, context }) => source === "logrelay" && context.state === "left_out";

export class Lines {
  #ask;
  #on;
  #recent = [];
  #recentAfter = null; // null: not known before the next line of the stream
  #lastSeq = null; // of the newest line that the stream brought; null: none since it was last asked for its lines
  #busy = { older: false, newer: false };
  #generation = 0; // answers to questions of an earlier one are thrown away
  #abort = new AbortController();

  /**
   * `ask(query, signal)` gets a page (Relay.lines with the filter in use). `on` has functions: `replaced(index)`: all
   * lines are others, look at that one, or at the end (-1); `prepended(count)`; `appended(count)`;
   * `dropped(first, last)`: so many were forgotten at the beginning and the end; `failed(message)`; `loading()`: what is
   * being asked for, or was missed, has changed.
   */
  constructor({ ask, on }) {
    this.#ask = ask;
    this.#on = on;
    /** The loaded lines, in order. */
    this.all = [];
    /** Whether the stretch goes on with what the stream brings. */
    this.live = true;
    /** Whether the journal may have matches before the first line. */
    this.older = false;
    /** What arrived since the end was last looked at (`seeEnd`): lines, and those of them that are errors. */
    this.missed = { lines: 0, errors: 0 };
  }

  get loading() {
    return this.#busy.older || this.#busy.newer;
  }

  get first() {
    return this.all.length ? seqOf(this.all[0]) : 0;
  }

  get last() {
    return this.all.length ? seqOf(this.all.at(-1)) : 0;
  }

  /** The stream was asked for other lines. Until it begins anew, nothing that it brought before joins a page of those. */
  expectReset() {
    this.#recent = [];
    this.#recentAfter = this.#lastSeq = null;
  }

  /** The stream begins anew: what it brings does not join what it brought before. */
  reset() {
    this.expectReset();
    if (this.live) this.follow();
  }

  /** Begin an empty stretch at the newest line; the stream, which is subscribed again, fills it. */
  follow() {
    this.#begin();
    this.live = true;
    this.older = true;
    this.all = [];
    this.seeEnd();
    this.#on.replaced(-1);
  }

  /** Take lines of the stream. `following` tells whether the end is being looked at. */
  add(arrived, following) {
    const lines = arrived.filter((line) => !isStandIn(line));
    if (!lines.length) return;
    this.#recentAfter ??= seqOf(lines[0]) - 1;
    this.#lastSeq = seqOf(lines.at(-1));
    if (!this.live || !following) {
      this.missed.lines += lines.length;
      this.missed.errors += lines.filter((line) => line.level === "ERROR").length;
    }
    if (this.live && !following && this.all.length + lines.length > MOST) this.#detach();
    if (this.live) {
      for (const line of lines) this.all.push(line);
      this.#on.appended(lines.length);
      if (following && this.all.length > MOST / 2) this.#drop(this.all.length - FOLLOWED, 0);
      return;
    }
    for (const line of lines) this.#recent.push(line);
    if (this.#recent.length > RECENT) {
      const gone = this.#recent.splice(0, this.#recent.length - RECENT);
      this.#recentAfter = seqOf(gone.at(-1));
    }
    this.#on.loading();
  }

  /** The end is being looked at, or left for another place: from now on it is counted what arrives. */
  seeEnd() {
    this.missed = { lines: 0, errors: 0 };
  }

  /** Ask for what surrounds a line. The line need not pass the filter. Rejects with RelayError when it is not kept. */
  async openAround(id) {
    await this.#open({ around: id, limit: PAGE }, (lines) => {
      const { seq } = splitId(id);
      return Math.max(0, lines.findIndex((line) => seqOf(line) >= seq));
    });
  }

  /** Ask for the first lines at or behind a time (milliseconds). */
  async openTime(time) {
    const found = await this.#open({ since: new Date(time).toISOString(), limit: PAGE }, () => 0);
    if (!found) await this.#open({ limit: PAGE }, (lines) => lines.length - 1); // nothing is as new as that
  }

  /** Ask for the first lines behind a position, given as the id of one. */
  async openAfter(id) {
    const found = await this.#open({ after: id, limit: PAGE }, () => 0);
    if (!found) await this.#open({ before: id, limit: PAGE }, (lines) => lines.length - 1);
  }

  loadOlder() {
    if (!this.older || !this.all.length) return;
    this.#page("older", { before: this.all[0].id, limit: PAGE }, ({ lines, more }) => {
      this.older = more;
      this.all = [...lines, ...this.all];
      this.#on.prepended(lines.length);
      if (this.all.length > MOST) {
        this.#detach();
        this.#drop(0, this.all.length - MOST + PAGE);
      }
    });
  }

  loadNewer() {
    if (this.live || !this.all.length) return;
    const last = this.all.at(-1);
    this.#page("newer", { after: last.id, limit: PAGE }, ({ lines, more, head }) => {
      const known = seqOf(last);
      const fresh = lines.filter((line) => seqOf(line) > known);
      if (!more && head && this.#recentAfter !== null && splitId(head).seq >= this.#recentAfter) {
        const reached = fresh.length ? seqOf(fresh.at(-1)) : known;
        fresh.push(...this.#recent.filter((line) => seqOf(line) > reached));
        this.#recent = [];
        this.live = true;
        this.seeEnd();
      }
      this.all.push(...fresh);
      this.#on.appended(fresh.length);
      if (this.all.length > MOST) this.#drop(PAGE, 0);
    });
  }

  // --- within

  #begin() {
    this.#generation += 1;
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#busy = { older: false, newer: false };
  }

  #detach() {
    if (!this.live) return;
    this.live = false;
    this.#recent = [];
    this.#recentAfter = this.#lastSeq;
  }

  #drop(first, last) {
    this.all = this.all.slice(first, this.all.length - last);
    if (first) this.older = true;
    this.#on.dropped(first, last);
  }

  /** Replace the stretch by a page; returns how many lines it has. */
  async #open(query, look) {
    this.#begin();
    this.#detach();
    this.seeEnd();
    const generation = this.#generation;
    this.#busy.older = true;
    this.#on.loading();
    try {
      const lines = (await this.#ask(query, this.#abort.signal)).lines.filter((line) => !isStandIn(line));
      if (generation !== this.#generation) return lines.length;
      this.#busy.older = false;
      if (lines.length) {
        this.older = true;
        this.all = lines;
        this.#on.replaced(look(lines));
      }
      this.#on.loading();
      return lines.length;
    } catch (error) {
      if (generation === this.#generation) this.#busy.older = false;
      if (error.name === "AbortError") return 1;
      throw error;
    }
  }

  async #page(end, query, take) {
    if (this.#busy[end]) return;
    const generation = this.#generation;
    this.#busy[end] = true;
    this.#on.loading();
    try {
      const page = await this.#ask(query, this.#abort.signal);
      page.more = page.lines.length >= PAGE;
      page.lines = page.lines.filter((line) => !isStandIn(line));
      if (generation !== this.#generation) return;
      this.#busy[end] = false;
      take(page);
    } catch (error) {
      if (generation !== this.#generation) return;
      this.#busy[end] = false;
      this.#on.failed(error.message);
    }
    this.#on.loading();
  }
}
