/**
 * The list: a tall canvas of which only the rows on the screen exist.
 *
 * Owns: where each loaded line is on the canvas, which rows exist, whether the newest line is followed, and the move to
 * another part of the journal. It must not know where lines come from, nor what a row shows: a row's kind gives its
 * height. Read `static/lines.js` next.
 *
 * The canvas stands for the whole journal: above and below the loaded lines is room for the rest, in proportion, and
 * bounded because browsers are. Near the loaded lines one pixel is one pixel, and lines that are added at either end
 * move nothing. Far from them, where somebody has dragged the bar to, the lines of that part are asked for.
 *
 * Three move the list: this module, the browser (which keeps it within its ends when it or the screen changes), and the
 * owner (keys and the handle count as his). An event tells of all three alike, later, and once for several. So every move
 * made here is written down in `#place`, and before each one it is found out what happened since: see `#noteScroll`.
 */

import { element, setText } from "./dom.js";
import { splitId } from "./client.js";
import { day } from "./format.js";

/** Pixels of room for lines that are not loaded, on each side. Browsers end at some 17 million in all. */
const MOST_ROOM = 3_000_000;
/** The canvas is laid out anew before it gets here. */
const TALLEST = 9_000_000;
/** Screens beyond the edge of what is loaded at which more is asked for; twice as far is another place. */
const NEAR = 3;
/** Milliseconds without scrolling after which somebody has arrived at another place. */
const ARRIVED = 120;
/** Milliseconds after which a place that is still not loaded is asked for again: the relay may have been busy. */
const AGAIN = 1_000;
/** Pixels from the bottom that still count as being there. */
const AT_BOTTOM = 24;
/** Rows built beyond the edge of the screen, in screens. */
const OVERSCAN = 0.5;

export class LineList {
  #parts;
  #lines;
  #outside;
  #rows = new Map(); // line -> element, of those that exist
  #offsets = [0]; // y of each loaded line, relative to the first; the last is the height of all
  #above = 0;
  #below = 0;
  #heights = {};
  #frame = 0;
  #arrival = 0;
  #following = true;
  #screen = 0; // height of the scroller; 0 while it is hidden
  #place = 0; // where this module last put the list or found it, which outlives being hidden
  #current = null; // the line that the keyboard is at
  #marked = null; // the id of the line that was jumped to
  #seeking = false; // lines of another place were asked for
  #bounds = { oldest: 1, head: 1, epoch: "" };

  /**
   * `parts` are elements: `scroller`, in it `canvas` (the rows) and `probe` (a hidden row of each kind, by data-kind);
   * `date`, `empty`, `edge`, `fresh` (button) and `thumb` (a handle beside the list). `lines` is a Lines. `outside` has
   * functions: `kinds(line, before, after)` names the parts of a row, whose heights add up (none: the line is not
   * shown); `build(line, kinds, after)` makes the row; `open(line)` shows a line in full; `nothing()` whether no line is among them, and
   * `emptyText()` what is said then; `restart()`
   * begins again at the newest line; `seek(id)` asks for the lines behind an id, and resolves whatever comes of it.
   */
  constructor({ parts, lines, outside }) {
    this.#parts = parts;
    this.#lines = lines;
    this.#outside = outside;
    const { scroller, canvas, fresh, probe } = parts;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    canvas.addEventListener("click", (event) => {
      const row = event.target.closest("[data-id]");
      if (!row || String(getSelection()) !== "") return;
      const line = this.#lineOf(row);
      this.#current = line;
      this.#outside.open(line);
    });
    fresh.onclick = () => this.toNewest();
    new ResizeObserver(() => this.relayout()).observe(probe);
    new ResizeObserver(() => this.#resized()).observe(scroller);
    this.#dragging();
    this.#measure();
  }

  /** Whether the newest line is on the screen and stays there. */
  get following() {
    return this.#following && this.#lines.live;
  }

  /** The line that the keyboard is at, or null. */
  get current() {
    return this.#current;
  }

  /** Learn the ids of the newest and the oldest line of the journal. */
  setBounds(oldest, head) {
    const { epoch, seq } = splitId(head);
    this.#bounds = { oldest: Math.max(1, splitId(oldest).seq), head: seq, epoch };
  }

  /** All lines are others; show the one at `index`, or the newest (-1). */
  replaced(index) {
    this.#rows.forEach((row) => row.remove());
    this.#rows.clear();
    this.#offsets = [0];
    this.#count(0);
    const { scroller } = this.#parts;
    if (index < 0) {
      this.#following = true;
      this.#marked = null;
      this.#above = this.#room("above");
      this.#below = 0;
      this.#size();
      this.#toBottom();
    } else if (this.#seeking) { // the bar stays where it was dragged to
      const { scrollTop: y, scrollHeight: height } = scroller;
      this.#above = Math.max(0, y - this.#offsets[index]);
      this.#below = Math.max(this.#room("below", 1), height - this.#above - this.#total);
      this.#seeking = false;
      this.#size();
      this.#goTo(this.#above + this.#offsets[index]);
    } else {
      this.#following = false;
      this.#above = this.#room("above");
      this.#below = this.#room("below");
      this.#marked = this.#lines.all[index]?.id ?? null;
      this.#current = this.#lines.all[index] ?? null;
      this.#size();
      this.#goTo(this.#above + this.#offsets[index] - scroller.clientHeight * 0.35);
    }
    this.#render();
  }

  prepended(count) {
    const height = this.#total;
    this.#offsets.unshift(...new Array(count).fill(0));
    this.#count(0, count + 1); // the first one before has a neighbour now
    this.#above -= this.#total - height; // what was there stays where it is
    this.#fit();
    this.#soon();
  }

  appended(count) {
    const all = this.#lines.all.length;
    const height = this.#total;
    this.#count(Math.max(0, all - count - 1)); // the last one before has a neighbour now
    if (!this.#lines.live) this.#below = Math.max(this.#room("below", 1), this.#below - (this.#total - height));
    else this.#below = 0;
    if (count === all || this.#canvasHeight > TALLEST) this.#relocate();
    this.#soon();
  }

  dropped(first, last) {
    const from = this.#offsets[first];
    this.#above += from;
    this.#offsets = this.#offsets.slice(first, this.#offsets.length - last).map((y) => y - from);
    this.#count(0, 1); // without the neighbour before it
    if (last) {
      this.#count(this.#lines.all.length - 1);
      this.#below = this.#room("below", 1);
    }
    this.#fit();
    this.#soon();
  }

  /** What is said when there is nothing to show, or what is being loaded, may have changed. */
  refresh() {
    this.#soon();
  }

  /** Rows look different now: build all of them again. */
  relayout() {
    this.#noteScroll();
    const index = this.#at(this.#top);
    const into = this.#top - this.#above - (this.#offsets[index] ?? 0);
    this.#measure();
    this.#rows.forEach((row) => row.remove());
    this.#rows.clear();
    this.#count(0);
    this.#size();
    if (this.following) this.#toBottom();
    else this.#goTo(this.#above + (this.#offsets[index] ?? 0) + into);
    this.#render();
  }

  /** Go to the newest line and stay there. */
  toNewest() {
    if (this.#lines.live) {
      this.#following = true;
      this.#toBottom();
      this.#render();
    } else {
      this.#outside.restart();
    }
  }

  /** Move the keyboard by so many lines that are shown, and put it on that row. */
  move(step) {
    const all = this.#lines.all;
    let index = this.#current ? all.indexOf(this.#current) : -1;
    if (index < 0) index = this.#at(this.#parts.scroller.scrollTop + this.#parts.scroller.clientHeight) + (step < 0 ? 1 : 0);
    do index += Math.sign(step); while (all[index] && this.#offsets[index + 1] === this.#offsets[index]);
    if (!all[index]) return;
    this.#current = all[index];
    const { scroller } = this.#parts;
    const top = this.#above + this.#offsets[index];
    const bottom = this.#above + this.#offsets[index + 1];
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (bottom > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = bottom - scroller.clientHeight;
    this.#render();
    this.focus();
  }

  /** Put the focus on the row that the keyboard is at, or on the list. */
  focus() {
    const row = this.#current && this.#rows.get(this.#current)?.querySelector("button");
    (row ?? this.#parts.scroller).focus({ preventScroll: true });
  }

  // --- where things are

  get #total() {
    return this.#offsets.at(-1);
  }

  get #canvasHeight() {
    return this.#above + this.#total + this.#below;
  }

  #lineOf(row) {
    return [...this.#rows].find(([, made]) => made === row)?.[0] ?? null;
  }

  #measure() {
    if (!this.#parts.probe.offsetHeight) return; // hidden: when they are shown again they have the heights they had, or it is told
    for (const row of this.#parts.probe.children) this.#heights[row.dataset.kind] = row.getBoundingClientRect().height;
  }

  /** Work out the heights of the lines from index `from` up to `until`; those behind it are moved along. */
  #count(from, until = this.#lines.all.length) {
    const all = this.#lines.all;
    const end = this.#offsets[until];
    for (let i = from; i < until; i += 1) {
      const kinds = this.#outside.kinds(all[i], all[i - 1], all[i + 1]);
      const height = kinds.reduce((sum, kind) => sum + this.#heights[kind], 0);
      this.#offsets[i + 1] = this.#offsets[i] + height;
      const row = this.#rows.get(all[i]);
      if (row && row.dataset.kinds !== kinds.join(" ")) {
        row.remove();
        this.#rows.delete(all[i]);
      }
    }
    if (end === undefined) return; // these are the last ones, and new
    const moved = this.#offsets[until] - end;
    for (let i = until + 1; i < this.#offsets.length; i += 1) this.#offsets[i] += moved;
  }

  /** Pixels for what is not loaded at one side, at most `most` screens of it when that is told. */
  #room(side, most = Infinity) {
    const { first, last, older, live, all } = this.#lines;
    const { scroller } = this.#parts;
    if (side === "above" && !older) return this.#heights.day; // where it is said that this is the oldest
    if (side === "below" && live) return 0;
    const seqs = side === "above" ? first - this.#bounds.oldest : this.#bounds.head - last;
    const perSeq = all.length ? this.#total / Math.max(1, last - first + 1) : 0;
    const screen = scroller.clientHeight || 600;
    return Math.min(MOST_ROOM, most * screen, Math.max(2 * screen, seqs * perSeq));
  }

  /** Keep room above where there is more, and none where there is not. */
  #fit() {
    const screen = this.#parts.scroller.clientHeight || 600;
    if (this.#lines.older ? this.#above < screen : this.#above !== this.#room("above")) this.#relocate();
    else this.#resize();
  }

  /** Where the list is scrolled to; while it is hidden, and until it is known that it is no more, a browser says 0. */
  get #top() {
    const { scroller } = this.#parts;
    return this.#screen && scroller.clientHeight ? scroller.scrollTop : this.#place;
  }

  /**
   * Find out whether the owner has scrolled up since this module last looked; if so, the newest line is followed no
   * more. Before every move: the event is still to come, and following the newest line now would undo the scroll.
   *
   * A browser moves a list up by itself where it would be beyond the end: when the screen has become taller, and, as
   * that may be over by now, at the taller one of its last two heights. What is above both `#place` and that was scrolled.
   */
  #noteScroll() {
    const { scroller } = this.#parts;
    if (!this.following || !this.#screen || !scroller.clientHeight) return;
    const { scrollTop: y, scrollHeight: height, clientHeight: screen } = scroller;
    const kept = Math.min(this.#place, height - Math.max(screen, this.#screen));
    if (y < kept - 1 && height - screen - y > AT_BOTTOM) this.#following = false;
  }

  /** Lay the canvas out anew, and keep what is on the screen where it is. */
  #relocate() {
    this.#noteScroll();
    const into = this.#top - this.#above;
    this.#above = this.#room("above");
    if (this.#lines.live) this.#below = 0;
    this.#size();
    if (this.following) this.#toBottom();
    else this.#goTo(this.#above + into);
  }

  #size() {
    const { canvas, scroller } = this.#parts;
    // A short list begins at the top.
    canvas.style.height = `${Math.max(this.#canvasHeight, scroller.clientHeight)}px`;
  }

  /** The index of the line at a y of the canvas; the nearest one beyond either end. */
  #at(y) {
    const wanted = y - this.#above;
    let [low, high] = [0, Math.max(0, this.#lines.all.length - 1)];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#offsets[middle] <= wanted) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // --- scrolling

  #goTo(y) {
    const { scroller } = this.#parts;
    scroller.scrollTop = y;
    this.#place = scroller.clientHeight ? scroller.scrollTop : y;
  }

  #toBottom() {
    this.#goTo(this.#parts.scroller.scrollHeight);
  }

  #resize() {
    this.#noteScroll();
    this.#size();
    if (this.following) this.#toBottom();
  }

  #resized() {
    const { scroller } = this.#parts;
    const shownAgain = this.#screen === 0;
    this.#noteScroll(); // while the height before is still known
    this.#screen = scroller.clientHeight;
    if (!this.#screen) return; // hidden: browsers forget where it was
    const place = this.#place;
    this.#resize();
    if (!this.following && shownAgain) this.#goTo(place);
    this.#render();
  }

  #scrolled() {
    const { scroller } = this.#parts;
    if (!this.#screen || !scroller.clientHeight) return;
    if (this.following && scroller.scrollTop === this.#place) return; // the list went there itself, and was drawn there
    this.#noteScroll();
    const left = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    this.#following = this.#lines.live && (this.#following || left <= AT_BOTTOM);
    this.#place = scroller.scrollTop;
    this.#render();
    clearTimeout(this.#arrival);
    this.#arrival = setTimeout(() => this.#arrived(), ARRIVED);
  }

  /** Ask for more where the loaded lines end within some screens. */
  #load() {
    const { scroller } = this.#parts;
    const screen = scroller.clientHeight;
    if (!this.#lines.all.length || !screen) return;
    const [top, bottom] = [scroller.scrollTop - this.#above, scroller.scrollTop + screen - this.#above];
    if (top < NEAR * screen && bottom > -2 * NEAR * screen) this.#lines.loadOlder();
    if (bottom > this.#total - NEAR * screen && top < this.#total + 2 * NEAR * screen) this.#lines.loadNewer();
  }

  #arrived() {
    const { scroller } = this.#parts;
    const screen = scroller.clientHeight;
    const [top, bottom] = [scroller.scrollTop - this.#above, scroller.scrollTop + screen - this.#above];
    const far = 2 * NEAR * screen;
    if (!this.#lines.all.length || this.#seeking || (bottom > -far && top < this.#total + far)) return;
    const { oldest, head, epoch } = this.#bounds;
    const { first, last } = this.#lines;
    const seq = top < 0
      ? oldest + (scroller.scrollTop / Math.max(1, this.#above)) * (first - oldest)
      : last + ((top - this.#total) / Math.max(1, this.#below - screen)) * (head - last);
    if (top >= 0 && bottom >= this.#total + this.#below - AT_BOTTOM) {
      this.#outside.restart();
      return;
    }
    this.#seeking = true;
    this.#outside.seek(`${epoch}-${Math.max(0, Math.min(head, Math.round(seq)) - 1)}`).finally(() => {
      this.#seeking = false;
      clearTimeout(this.#arrival);
      this.#arrival = setTimeout(() => this.#arrived(), AGAIN); // where no answer came, or somebody went on meanwhile
    });
  }

  /** A handle beside the list, because the bar of a phone's browser cannot be dragged. */
  #dragging() {
    const { thumb, scroller } = this.#parts;
    thumb.addEventListener("pointerdown", (down) => {
      down.preventDefault();
      thumb.setPointerCapture(down.pointerId);
      thumb.classList.add("dragged");
      const grip = down.clientY - thumb.getBoundingClientRect().top;
      const move = (event) => {
        const box = scroller.getBoundingClientRect();
        const way = box.height - thumb.offsetHeight;
        const share = Math.min(1, Math.max(0, (event.clientY - box.top - grip) / way));
        scroller.scrollTop = share * (scroller.scrollHeight - scroller.clientHeight);
      };
      const end = () => {
        thumb.classList.remove("dragged");
        thumb.removeEventListener("pointermove", move);
      };
      thumb.addEventListener("pointermove", move);
      thumb.addEventListener("pointerup", end, { once: true });
      thumb.addEventListener("pointercancel", end, { once: true });
    });
  }

  // --- drawing

  #soon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#resize();
      this.#render();
    });
  }

  #render() {
    const { scroller, canvas, date, empty, edge } = this.#parts;
    const { all } = this.#lines;
    const screen = scroller.clientHeight;
    const top = scroller.scrollTop;
    const shown = new Set();
    if (all.length) {
      const last = top + screen * (1 + OVERSCAN);
      for (let i = this.#at(top - screen * OVERSCAN); i < all.length && this.#above + this.#offsets[i] < last; i += 1) {
        if (this.#offsets[i + 1] > this.#offsets[i] && this.#above + this.#offsets[i + 1] > top - screen * OVERSCAN) shown.add(i);
      }
    }
    const wanted = new Set([...shown].map((i) => all[i]));
    const focused = document.activeElement;
    for (const [line, row] of this.#rows) {
      if (wanted.has(line)) continue;
      if (row.contains(focused)) scroller.focus({ preventScroll: true });
      row.remove();
      this.#rows.delete(line);
    }
    let before = null;
    for (const i of shown) {
      const line = all[i];
      let row = this.#rows.get(line);
      if (!row) {
        const kinds = this.#outside.kinds(line, all[i - 1], all[i + 1]);
        row = this.#outside.build(line, kinds);
        row.dataset.kinds = kinds.join(" ");
        row.dataset.id = line.id;
        this.#rows.set(line, row);
        if (before) before.after(row);
        else canvas.prepend(row);
      }
      before = row;
      const y = `${this.#above + this.#offsets[i]}px`;
      if (row.style.top !== y) row.style.top = y;
      row.classList.toggle("marked", line.id === this.#marked);
      row.querySelector("button").tabIndex = line === this.#current || (!this.#current && i === Math.max(...shown)) ? 0 : -1;
    }
    const from = all.length ? all[this.#at(top)] : null;
    date.hidden = !from;
    if (from) setText(date, day(from.timestamp));
    const none = this.#total === 0;
    empty.hidden = !none && !this.#outside.nothing();
    if (!empty.hidden) setText(empty, this.#outside.emptyText());
    const atTop = top < this.#above + screen;
    edge.hidden = none || !atTop || (this.#lines.older && !this.#lines.loading);
    if (!edge.hidden) {
      setText(edge, this.#lines.older ? "loading older lines" : "nothing older"); // to be said of matches, too
      edge.style.top = `${Math.max(0, Math.min(this.#above - edge.offsetHeight, top + screen / 2))}px`;
    }
    this.#showFresh();
    this.#showThumb();
    this.#load();
  }

  #showFresh() {
    const { fresh } = this.#parts;
    fresh.hidden = this.following || !this.#lines.all.length;
    if (this.following) this.#lines.seeEnd();
    if (fresh.hidden) {
      setText(fresh, "");
      return;
    }
    const { lines, errors } = this.#lines.missed;
    setText(fresh, `paused${lines ? ` \u00b7 ${lines.toLocaleString("en")} new` : ""}${errors ? `, ${errors.toLocaleString("en")} ${errors === 1 ? "error" : "errors"}` : ""} \u2193`);
    fresh.classList.toggle("bad", errors > 0);
  }

  #showThumb() {
    const { thumb, scroller } = this.#parts;
    const way = scroller.scrollHeight - scroller.clientHeight;
    thumb.hidden = way < 3 * scroller.clientHeight;
    if (thumb.hidden) return;
    const y = `${(scroller.scrollTop / way) * (scroller.clientHeight - thumb.offsetHeight)}px`;
    thumb.style.transform = `translateY(${y})`;
  }
}
