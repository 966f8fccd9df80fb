/**
 * What happened since the last look, kept up to date: counts, bots, problems, crashes, gaps.
 *
 * Owns: when the relay is asked for it, and putting answers together: the first one tells all since the last look, each
 * further one only what is behind the one before. It must not know how any of it is shown.
 * Read `static/bots.js` next.
 */

/** Milliseconds between two questions while somebody looks; the stream makes it sooner when something happens. */
const EVERY = 5_000;
/** The same when nobody looks, for notifications. */
const EVERY_HIDDEN = 30_000;
/** Milliseconds in which what the stream tells is asked about together. */
const TOGETHER = 300;
/** Without a last look, and when that is no longer kept, so much is told. */
const DEFAULT_SINCE = "1d";
/** Groups, crashes and gaps that are kept, as many as an answer has. */
const MOST = 100;
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
const SEVERITY = (problem) => (problem.severity === "CRITICAL" ? 4 : LEVELS.indexOf(problem.level));

const added = (one, other) => Object.fromEntries(LEVELS.map((level) => [level, (one?.[level] ?? 0) + (other?.[level] ?? 0)]));

/** Put an answer and the one for what follows it together. */
export function joined(old, next) {
  const apps = next.apps.map((app) => {
    const known = old.apps.find((one) => one.app === app.app);
    return known ? { ...app, lines: added(known.lines, app.lines), first: known.first ?? app.first, last: app.last ?? known.last,
      crashes: known.crashes + app.crashes, gaps: known.gaps + app.gaps, lost: known.lost + app.lost } : app;
  });
  for (const known of old.apps) if (!apps.some((app) => app.app === known.app)) apps.push(known);
  const groups = new Map(old.problems.map((problem) => [problem.group, problem]));
  let more = old.more_problems;
  for (const problem of next.problems) {
    const known = groups.get(problem.group);
    const newest = known && SEVERITY(known) > SEVERITY(problem) ? known : problem;
    groups.set(problem.group, known
      ? { ...newest, count: known.count + problem.count, first: known.first, last: problem.last } : problem);
  }
  const problems = [...groups.values()].sort((a, b) => SEVERITY(b) - SEVERITY(a) || (a.last.timestamp < b.last.timestamp ? 1 : -1));
  more += Math.max(0, problems.length - MOST);
  const lists = (name) => [...next[name], ...old[name]].slice(0, MOST);
  const beyond = (name) => old[`more_${name}`] + next[`more_${name}`] + Math.max(0, next[name].length + old[name].length - MOST);
  return { ...next, since: old.since, after: old.after, lines: added(old.lines, next.lines), apps,
    problems: problems.slice(0, MOST), more_problems: more + next.more_problems,
    crashes: lists("crashes"), more_crashes: beyond("crashes"), gaps: lists("gaps"), more_gaps: beyond("gaps") };
}

/** How many crashes and gaps a summary tells of, and how many lines at each level from ERROR on. */
export function totals(data) {
  const { ERROR: errors, CRITICAL: critical, WARNING: warnings } = data.lines;
  const crashes = data.crashes.length + data.more_crashes;
  const gaps = data.gaps.length + data.more_gaps;
  return { critical, errors, warnings, crashes, gaps, bad: critical + errors + crashes + gaps };
}

/**
 * What a summary tells of some bots: the same without the problems of the others, and how many those are (`elsewhere`).
 * `isShown(app)` tells which; what nobody knows the bot of stays. All bots stay, with how they are.
 */
export function narrowed(data, isShown) {
  const ours = ({ app }) => !app || isShown(app);
  const lines = data.apps.every(ours) ? data.lines : data.apps.filter(ours).reduce((sum, app) => added(sum, app.lines), added());
  const shown = { ...data, lines, problems: data.problems.filter(ours), crashes: data.crashes.filter(ours), gaps: data.gaps.filter(ours) };
  const [all, here] = [data, shown].map((one) => totals(one)).map(({ bad, warnings }) => bad + warnings);
  return { ...shown, elsewhere: all - here };
}

export class Summary {
  #ask;
  #isHidden;
  #on;
  #seen;
  #timer = 0;
  #asking = false;
  #again = false;
  #generation = 0;

  /**
   * `ask(query)` is Relay.summary, `isHidden()` tells whether nobody looks: null for "do not ask at all then".
   * `seen` is { id, at } of the last look or null. `on.changed(data, received)` gets what is known and the time it is of,
   * `on.failed(error)` a RelayError.
   */
  constructor({ ask, isHidden, seen, on }) {
    this.#ask = ask;
    this.#isHidden = isHidden;
    this.#on = on;
    this.#seen = seen;
    /** What is known; null before the first answer. */
    this.data = null;
  }

  /** Ask now, and go on asking. */
  start() {
    this.#plan(0);
  }

  /** The stream told of something: ask soon. */
  poke() {
    if (!this.#asking) this.#plan(TOGETHER);
    else this.#again = true;
  }

  /** Begin anew behind the last line that is known, which is { id, at } of the look from now on; null without one. */
  see(now) {
    if (!this.data?.head) return null; // nothing was logged yet
    this.#seen = { id: this.data.head, at: now };
    this.#forget();
    return this.#seen;
  }

  /** Begin anew at the same place: another token may see something else. */
  restart() {
    this.#forget();
  }

  #forget() {
    this.#generation += 1;
    this.data = null;
    this.#asking = false;
    this.#plan(0);
  }

  #plan(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#refresh(), wait);
  }

  async #refresh() {
    const hidden = this.#isHidden();
    if (hidden === null) return; // start() begins again
    const generation = this.#generation;
    this.#asking = true;
    this.#again = false;
    try {
      const answer = await this.#answer();
      if (generation !== this.#generation) return;
      this.data = this.data?.head ? joined(this.data, answer) : answer;
      this.#on.changed(this.data, Date.now());
    } catch (error) {
      if (generation !== this.#generation) return;
      if (error.status === 410) this.data = null;
      this.#on.failed(error);
    }
    this.#asking = false;
    this.#plan(this.#again ? TOGETHER : hidden ? EVERY_HIDDEN : EVERY);
  }

  async #answer() {
    if (this.data?.head) return this.#checked({ after: this.data.head });
    if (!this.#seen) return this.#checked({ since: DEFAULT_SINCE });
    try {
      return await this.#checked({ after: this.#seen.id });
    } catch (error) {
      if (error.status !== 410) throw error;
      return this.#checked({ since: new Date(this.#seen.at).toISOString() }); // of another journal, or lost with the power
    }
  }

  async #checked(query) {
    const answer = await this.#ask(query);
    if (answer.type !== "summary") throw Object.assign(new Error(answer.message), { status: 503 });
    return answer;
  }
}
