/**
 * The list of lines: bounded, drawn a frame's worth at a time, following the newest line or paused.
 *
 * Owns: the rows in the page, which line each of them shows, the lines that wait for a row, the pause, and the
 * question for older lines. It must not know the connection, the filters, or what a row looks like: it asks for older
 * lines and for a new beginning through the functions it is given. Read `static/rows.js` next.
 *
 * The scroller is a reversed column: its origin is the bottom, so it follows by itself while it is there, and older
 * lines put in on top move nothing.
 */

import { element, setText } from "./dom.js";
import { buildRow, markDay } from "./rows.js";

/** Lines kept in the page: what a phone scrolls smoothly. Older ones come back from the relay's journal. */
export const MAX_LINES = 5_000;
/** Older lines asked for at once: a few screens. */
const HISTORY = 200;
/** Rows built per animation frame; a burst is spread over frames instead of stopping the page. */
const ROWS_PER_FRAME = 250;
/** Rows that the browser lays out, skips and drops together; single rows would cost it too much in a burst. */
const CHUNK = 100;
/** Pixels from the bottom that still count as being there. */
const AT_BOTTOM = 24;
/** Pixels from the top at which older lines are asked for. */
const NEAR_TOP = 400;

export class LineList {
  #parts; // the elements, see the constructor
  #outside; // the functions, see the constructor
  #lines = new WeakMap(); // row -> line
  #waiting = []; // lines without a row yet: a few frames' worth, or, while paused, those behind the button
  #unseen = 0; // lines since the pause, those given up included
  #paused = false;
  #pausedBy = ""; // "scroll": the pause ends at the bottom; "row": by closing the row; "button": by the button
  #detached = false; // more came during the pause than is kept: going on means beginning again at the end
  #count = 0; // rows in the list; asking the list counts them one by one
  #frame = 0;
  #loading = null; // the id before which older lines were asked for
  #app = null; // of the first line that said it; a second one makes every row show its own
  #more = false; // the journal may have lines before the first row

  /**
   * `parts` are elements: the `scroller`, in it `older` (button), `lines` and `empty` (text), and the buttons
   * `pause` and `fresh`. `emptyText()` says why there is no line. `buildDetails(line)` makes what an open row shows.
   * `askOlder(id, limit)` asks for lines before an id and returns whether it could; the answer comes to addOlder() or
   * as olderFailed(). `restart()` asks for the newest lines again; reset() announces them.
   */
  constructor({ parts, ...outside }) {
    this.#parts = parts;
    this.#outside = outside;
    const { scroller, lines, older, fresh, pause } = parts;
    lines.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row && !event.target.closest(".details") && String(getSelection()) === "") this.#toggle(row);
    });
    lines.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.classList.contains("row")) this.#toggle(event.target);
    });
    pause.onclick = () => (this.#paused ? this.#resume() : this.#pauseBy("button"));
    fresh.onclick = () => this.#resume();
    older.onclick = () => this.#loadOlder();
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#showEdges();
  }

  /** Take new lines, in order. They are drawn in the next frames, or wait while the list is paused. */
  add(lines) {
    for (const line of lines) this.#waiting.push(line);
    if (this.#paused) {
      this.#unseen += lines.length;
      if (this.#waiting.length > MAX_LINES) this.#detached = true;
      if (this.#detached) this.#waiting = [];
      this.#showFresh();
    } else {
      if (this.#waiting.length > MAX_LINES) { // the page sleeps: these would be drawn and removed again
        this.#waiting = this.#waiting.slice(-MAX_LINES);
        this.#empty();
      }
      this.#draw();
    }
  }

  /** Begin an empty list at the bottom, not paused. */
  reset() {
    this.#waiting = [];
    this.#unseen = 0;
    this.#detached = false;
    this.#empty();
    this.#setPaused(false);
    this.#parts.scroller.scrollTop = 0;
    this.#showEdges();
  }

  /** Take the answer to askOlder(before): lines in order, and whether there are more before them. */
  addOlder(lines, more, before) {
    if (this.#loading !== before) return; // the list was emptied meanwhile
    this.#loading = null;
    this.#more = more;
    const first = this.#parts.lines.firstChild.firstChild;
    if (lines.length) markDay(first, this.#lines.get(first), lines.at(-1));
    const rows = lines.map((line, i) => this.#makeRow(line, lines[i - 1]));
    for (let end = rows.length; end > 0; end -= CHUNK) {
      const chunk = element("ol");
      chunk.append(...rows.slice(Math.max(0, end - CHUNK), end));
      this.#parts.lines.prepend(chunk);
    }
    this.#count += lines.length;
    this.#showEdges();
  }

  /** Learn that the older lines that were asked for, if any, will not come. */
  olderFailed() {
    this.#loading = null;
    this.#showEdges();
  }

  // --- drawing

  #makeRow(line, before) {
    const row = buildRow(line);
    this.#app ??= line.app;
    if (line.app !== undefined && line.app !== this.#app) this.#parts.lines.classList.add("apps");
    this.#lines.set(row, line);
    markDay(row, line, before);
    return row;
  }

  #draw() {
    if (!this.#frame && this.#waiting.length && !this.#paused) {
      this.#frame = requestAnimationFrame(() => this.#drawSome());
    }
  }

  #drawSome() {
    this.#frame = 0;
    if (this.#paused) return;
    const { lines } = this.#parts;
    let chunk = lines.lastChild;
    let before = chunk && this.#lines.get(chunk.lastChild);
    // Behind by much: more per frame, so that drawing always overtakes arriving.
    for (const line of this.#waiting.splice(0, Math.max(ROWS_PER_FRAME, this.#waiting.length >> 2))) {
      if (!chunk || chunk.childElementCount >= CHUNK) lines.append(chunk = element("ol"));
      chunk.append(this.#makeRow(line, before));
      before = line;
      this.#count += 1;
    }
    while (this.#count > MAX_LINES) {
      this.#count -= lines.firstChild.childElementCount;
      lines.firstChild.remove();
      this.#more = true;
    }
    this.#showEdges();
    this.#draw();
  }

  #empty() {
    this.#parts.lines.replaceChildren();
    this.#parts.lines.classList.remove("apps");
    this.#app = null;
    this.#count = 0;
    this.#loading = null;
    this.#more = true;
  }

  #showEdges() {
    const { empty, older } = this.#parts;
    empty.hidden = this.#count > 0 || this.#waiting.length > 0;
    setText(empty, this.#outside.emptyText());
    const full = this.#count >= MAX_LINES;
    older.hidden = this.#count === 0;
    older.disabled = this.#loading || !this.#more || full;
    setText(older, this.#loading ? "loading\u2026" : !this.#more ? "the oldest line that is kept"
      : full ? `no more than ${MAX_LINES} lines fit in this page` : "load older lines");
  }

  #loadOlder() {
    if (!this.#count || this.#loading || !this.#more || this.#count >= MAX_LINES) return;
    const { id } = this.#lines.get(this.#parts.lines.firstChild.firstChild);
    if (this.#outside.askOlder(id, HISTORY)) this.#loading = id;
    this.#showEdges();
  }

  // --- following and pausing

  #scrolled() {
    const { scroller } = this.#parts;
    const up = -scroller.scrollTop;
    if (up > AT_BOTTOM && !this.#paused) {
      this.#pauseBy("scroll");
    } else if (up <= AT_BOTTOM && this.#paused && this.#pausedBy === "scroll") {
      this.#resume();
    }
    if (up > AT_BOTTOM && scroller.scrollHeight - scroller.clientHeight - up < NEAR_TOP) this.#loadOlder();
  }

  #toggle(row) {
    const { scroller } = this.#parts;
    const details = row.querySelector(".details");
    const top = row.getBoundingClientRect().top;
    if (!details && !this.#paused) this.#pauseBy("row"); // what is being read must not move away
    if (details) details.remove();
    else row.append(this.#outside.buildDetails(this.#lines.get(row)));
    row.classList.toggle("open", !details);
    scroller.scrollTop += row.getBoundingClientRect().top - top; // growing at the bottom must not lift it off
    if (!details) row.scrollIntoView({ block: "nearest" });
    else if (this.#pausedBy === "row" && -scroller.scrollTop <= AT_BOTTOM) this.#resume();
  }

  #pauseBy(reason) {
    this.#pausedBy = reason;
    this.#setPaused(true);
  }

  #resume() {
    const behind = this.#detached;
    this.#setPaused(false);
    this.#parts.scroller.scrollTop = 0;
    if (behind) this.#outside.restart();
  }

  #setPaused(value) {
    const { pause } = this.#parts;
    this.#paused = value;
    pause.textContent = value ? "resume" : "pause";
    pause.setAttribute("aria-pressed", String(value));
    if (!value) {
      this.#unseen = 0;
      this.#draw();
    }
    this.#showFresh();
  }

  #showFresh() {
    const { fresh } = this.#parts;
    fresh.hidden = !this.#paused || this.#unseen === 0;
    fresh.textContent = `${this.#unseen} new ${this.#unseen === 1 ? "line" : "lines"} \u2193`;
  }
}
