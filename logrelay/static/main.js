/**
 * The page: makes its parts, introduces them to each other, and starts them.
 *
 * Owns: which part is called for which event. It must not know how any part does its work, and no part knows another
 * one that it was not given here. Every element is looked up here, once. Read `static/address.js` next.
 *
 * The functions that are given away may name a part made below them: they are called for events only, and the first
 * event comes after the last line of this module.
 */

import { Address, takeToken } from "./address.js";
import { Alerts } from "./alerts.js";
import { Bots } from "./bots.js";
import { LogRelayClient, splitId } from "./client.js";
import { copyText, saveFile, toCsv } from "./clipboard.js";
import { DetailSheet } from "./detail.js";
import { button, element, redraw, setText } from "./dom.js";
import { Filters, NO_FILTER, writeFilter } from "./filters.js";
import { inputTime, moment, visible } from "./format.js";
import { Keys } from "./keys.js";
import { Lines } from "./lines.js";
import { Link } from "./link.js";
import { LineList } from "./list.js";
import { Login } from "./login.js";
import { Notifications } from "./notify.js";
import { Problems } from "./problems.js";
import { Relay } from "./relay.js";
import { isNotice, Rows } from "./rows.js";
import { Seen } from "./seen.js";
import { PageStorage } from "./storage.js";
import { narrowed, Summary, totals } from "./summary.js";
import { TradeNames } from "./tradenames.js";
import { Trades } from "./trades.js";

/** Lines to begin with: some screens; what is older is asked for when somebody scrolls there. */
const TAIL = 200;
/** When more than this was missed, the page begins again with the newest lines instead of reading all. */
const MOST_MISSED = 5_000;
/** Milliseconds of silence until the relay is asked whether it is there, and until it is given up: 10 s in all. */
const PING_AFTER = 4_000;
const PONG_WITHIN = 4_000;
/** Milliseconds between two attempts to connect at most: somebody looks at the page. */
const RETRY_LONGEST = 3_000;
/** Lines of an export, and of a count of matches. */
const EXPORTED = 100_000;
const COUNTED = 1_000;
/** Milliseconds between two looks at the money while the stream does not bring every line. */
const MONEY_EVERY = 60_000;
/** Milliseconds without a line after which it is asked whether there is any. */
const SILENT = 500;
/** Hosts whose bytes do not leave the machine. */
const THIS_MACHINE = /^(.+\.)?localhost$|^127\.[0-9.]+$|^\[::1\]$/;

const $ = (id) => document.getElementById(id);
const parts = (...ids) => Object.fromEntries(ids.map((id) => [id, $(id)]));
const base = new URL(".", location.href);
const socket = new URL("ws", base);
socket.protocol = socket.protocol === "https:" ? "wss:" : "ws:";
$("plain").hidden = base.protocol === "https:" || THIS_MACHINE.test(base.hostname);

/** What the page as a whole has come to. */
const state = { summary: null, open: false, shown: null, head: "", stale: true, timer: 0, money: 0, place: null };

const storage = new PageStorage({ tab: sessionStorage, phone: localStorage });
const given = takeToken(location, history);
if (given) storage.saveToken(given, storage.remembered);

const relay = new Relay({ base, token: () => storage.token });
const names = new TradeNames();
const login = new Login({ parts: parts("login", "reason", "token", "remember"), storage, onToken: () => renew() });
const link = new Link({ element: $("trouble"), probe: () => relay.probe(), login, isOpen: () => state.open });

// --- what is known of the bots

const seen = new Seen({
  parts: { ...parts("since", "seen", "top"), tab: $("tab-problems") },
  outside: {
    see: () => {
      const now = summary.see(Date.now());
      if (now) storage.saveSeen(now);
      list.relayout();
    },
    open: (problem) => openProblem(problem),
    title: (text) => setText(document.querySelector("title"), text),
    badge: (number) => (number ? navigator.setAppBadge?.(number) : navigator.clearAppBadge?.())?.catch(() => {}),
  },
});
const bots = new Bots({
  parts: parts("bots", "lost"),
  outside: { tap: (app) => filters.toggleApp(app), worst: (worst) => seen.setWorst(worst) },
});
const problems = new Problems({
  list: $("problems"),
  more: $("more"),
  outside: { open: (problem) => openProblem(problem), around: (id) => openAround(id) },
});
const alerts = new Alerts({
  parts: parts("alerts", "active", "silences", "services", "silence", "silenceapp", "silencefor"),
  outside: {
    ask: () => relay.alerts(),
    silence: (app, seconds) => client.silence(app, seconds) || link.showRemark("Not connected: nothing was silenced."),
    around: (id) => openAround(id),
  },
});
const notifications = new Notifications({ storage, isHidden: () => document.visibilityState === "hidden" });
const summary = new Summary({
  ask: (query) => relay.summary(query),
  isHidden: () => (login.asking ? null : document.visibilityState === "visible" ? false : notifications.wanted ? true : null),
  seen: storage.seen,
  on: {
    changed: (data, received) => {
      showSummary(data, received, false);
      if (address.view.tab === "problems") alerts.refresh();
      notifications.take(data);
      storage.saveLast({ data, received });
    },
    failed: (error) => {
      if (error.status === 401) link.deny(error.message);
    },
  },
});

function showSummary(data, received, stored) {
  const several = data.apps.length > 1;
  const known = document.body.classList.contains("apps");
  document.body.classList.toggle("apps", several);
  if (!stored && data.head) list.setBounds(data.oldest, data.head);
  if (several !== known) list.relayout();
  $("looked").hidden = false;
  bots.take(data, received, stored);
  state.summary = data;
  showProblems();
  alerts.setApps(data.apps.map(({ app }) => app));
  redraw($("crashes"), JSON.stringify(data.crashes.map(({ id }) => id)), () => data.crashes.map((crash) => {
    const item = element("li");
    item.append(button("", `when ${visible(crash.app ?? "it")} crashed, ${moment(crash.timestamp)}`, () => openAround(crash.id)));
    return item;
  }));
}

/** Show what went wrong, of the bots that are asked for. */
function showProblems() {
  if (!state.summary) return;
  const shown = narrowed(state.summary, (app) => filters.passesApp(app));
  seen.take(shown, storage.seen, totals(state.summary).bad);
  problems.take(shown);
}

// --- the lines

const filters = new Filters({
  parts: parts("controls", "levels", "text", "conditions"),
  onChange: (filter, typed) => {
    const refined = typed && address.view.filter.text !== "" && filter.text !== "";
    // What is searched is looked for from the newest line; any other filter leaves somebody at the line he has gone to.
    const at = typed ? null : state.place ?? address.view.at;
    address.go({ filter, at, sheet: null, tab: "log" }, refined);
  },
});
const lines = new Lines({
  ask: (query, signal) => relay.lines(query, filters.asked, signal),
  on: {
    replaced: (index) => list.replaced(index),
    prepended: (count) => list.prepended(count),
    appended: (count) => list.appended(count),
    dropped: (first, last) => list.dropped(first, last),
    failed: (message) => link.showText(message),
    loading: () => list.refresh(),
  },
});
const rows = new Rows({
  seen: () => (storage.seen ? splitId(storage.seen.id).seq : null),
  apps: () => document.body.classList.contains("apps"),
  search: () => filters.current.text,
  isExcluded: (line) => filters.isExcluded(line),
  trades: names,
});
const list = new LineList({
  parts: parts("scroller", "canvas", "probe", "date", "empty", "edge", "fresh", "thumb"),
  lines,
  outside: {
    kinds: (line, before, after) => rows.kinds(line, before, after),
    build: (line, kinds) => rows.build(line, kinds),
    open: (line) => address.go({ sheet: line.id }),
    nothing: () => filters.active && lines.all.length < TAIL && lines.all.every(isNotice),
    emptyText: () => (lines.loading || (state.open && state.stale) ? "Reading\u2026" : !state.open ? "Not connected yet."
      : filters.active ? "No line matches so far." : "Nothing has been logged yet."),
    restart: () => (address.view.at ? address.go({ at: null }) : follow()),
    seek: (id) => lines.openAfter(id).catch((error) => link.showRemark(error.message)),
  },
});
const client = new LogRelayClient({
  url: socket.href,
  token: storage.token,
  tail: TAIL,
  maxResume: MOST_MISSED,
  pingAfter: PING_AFTER,
  pongWithin: PONG_WITHIN,
  retryLongest: RETRY_LONGEST,
  onLines: (arrived) => {
    lines.add(arrived, list.following);
    bots.heard(arrived, splitId(state.head).seq);
    trades.add(arrived);
    state.stale &&= arrived.every(isNotice);
    if (arrived.some((line) => line.level === "ERROR" || line.level === "WARNING" || isNotice(line))) summary.poke();
  },
  onReset: () => {
    lines.reset();
    findOutWhetherEmpty();
  },
  onError: (error) => link.showText(error.message),
  onAlerts: (shown) => alerts.take(shown),
  onConnection: (message) => {
    link.showText("");
    login.hide();
    storage.noteWorked();
    $("forget").hidden = storage.token === null;
    state.head = message.head;
    list.setBounds(message.oldest, message.head);
    summary.poke();
    if (!names.events.length) loadTrades();
  },
  onState: (now) => {
    state.open = now === "open";
    bots.setOpen(state.open);
    list.refresh();
  },
  onLost: ({ code, reason, greeted }) => {
    if (!greeted || code === 4401) link.explain();
    else if (reason) link.showText(`The connection ended: ${reason}${code > 1001 ? ` (${code})` : ""}.`);
  },
});

/** Nothing tells the end of what the stream begins with: when nothing comes, the relay is asked whether there is any. */
function findOutWhetherEmpty() {
  state.stale = splitId(state.head).seq > 0;
  clearTimeout(state.timer);
  list.refresh();
  if (!state.stale) return;
  state.timer = setTimeout(async () => {
    if (!state.stale) return;
    try {
      state.stale = (await relay.lines({ limit: 1 }, filters.asked)).lines.some((line) => !isNotice(line));
    } catch { /* the connection says what is wrong */ }
    list.refresh();
  }, SILENT);
}

// --- money

const trades = new Trades({
  parts: parts("trades", "money", "tradesnote"),
  names,
  outside: {
    ask: (query, filter) => relay.lines(query, filter),
    follow: (trade) => {
      const last = trade.lines.at(-1);
      const key = names.orderFields.find((field) => last.context[field] !== undefined);
      followOrder(key, last.context[key]);
    },
    isShown: () => address.view.tab === "trades",
  },
});

async function loadTrades() {
  state.money = Date.now();
  try {
    if (!names.events.length) names.take(await relay.tradeNames());
    await trades.load();
    list.relayout();
  } catch { /* the connection says it is broken; the next one asks again */ }
}

setInterval(() => {
  if (document.visibilityState === "visible" && state.open && Date.now() - state.money >= MONEY_EVERY) loadTrades();
}, MONEY_EVERY);

// --- one line

/** Filter by something of the open line, and stay at that line where the newest one is not followed. */
function filterHere(filter) {
  state.place = list.following ? null : sheet.line?.id ?? null;
  filter();
  state.place = null;
}

const sheet = new DetailSheet({
  dialog: $("sheet"),
  outside: {
    only: (kind, value) => filterHere(() => (kind === "text" ? filters.search(value) : filters.add(kind, value))),
    not: (key, value) => filterHere(() => filters.leaveOut(key, value)),
    around: (line) => openAround(line.id),
    follow: (key, value) => followOrder(key, value),
    copy: copyText,
    share: navigator.share ? (line) => navigator.share({ title: line.message, text: JSON.stringify(line, null, 1), url: linkTo(line) }).catch(() => {}) : null,
    link: (line) => linkTo(line),
    orderFields: () => names.orderFields,
    onClose: () => address.back({ sheet: null }),
  },
});

function linkTo(line) {
  return new URL(address.of({ tab: "log", filter: NO_FILTER, at: line.id, sheet: null }), location.href).href;
}

function followOrder(key, value) {
  address.go({ tab: "log", filter: { ...NO_FILTER, where: [`${key}=${value}`] }, at: null, sheet: null });
}

function openAround(id) {
  $("more-sheet").close();
  address.go({ tab: "log", filter: NO_FILTER, at: id, sheet: null });
}

/** Show the lines of a problem; its message is searched, at its level. */
function openProblem(problem) {
  const level = problem.level === "ERROR" ? "ERROR" : "WARNING";
  const text = problem.message.slice(0, 256).split(/\d+/).sort((a, b) => b.length - a.length)[0].trim();
  address.go({ tab: "log", filter: { ...NO_FILTER, level, text }, at: problem.last.id, sheet: null });
}

// --- going somewhere

/** Begin at the newest line; the stream is asked for what the filter shows now, unless it just was. */
function follow(subscribe = true) {
  lines.follow();
  if (subscribe) subscribeAnew();
}

function subscribeAnew() {
  lines.expectReset();
  client.subscribe(filters.asked);
}

async function show(view) {
  const before = state.shown;
  state.shown = view;
  if (!before || before.at !== view.at || before.filter !== view.filter || before.tab !== view.tab) link.showRemark(view.remarks.join(" "));
  const asked = JSON.stringify(filters.asked);
  filters.show(view.filter);
  for (const tab of document.querySelectorAll("[data-tab]")) {
    const here = tab.dataset.tab === view.tab;
    if (here) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
    $(`panel-${tab.dataset.tab}`).hidden = !here;
  }
  if (view.tab === "problems" && before?.tab !== "problems") alerts.refresh();
  if (view.tab === "trades" && before?.tab !== "trades") {
    trades.show();
    if (before) loadTrades();
  }
  if (before && writeFilter(before.filter).toString() !== writeFilter(view.filter).toString()) {
    link.showText("");
    list.relayout();
    showProblems();
    countMatches(view.filter);
  }
  const other = asked !== JSON.stringify(filters.asked);
  if (before && other) subscribeAnew();
  if (view.at && (other || before?.at !== view.at)) await openAt(view.at);
  else if (before && (other || before.at !== view.at)) follow(!other);
  if (view.sheet) showSheet(view.sheet);
  else sheet.close();
}

/** Go to a line; where it is gone, to the nearest ones of its journal, or to the newest of another one. */
async function openAt(id) {
  try {
    await lines.openAround(id);
    if (!lines.all.some((line) => line.id === id)) link.showRemark(`The line ${id} is not kept any more. These are the ones nearest to it.`);
  } catch (error) {
    if (error.status !== 410) {
      link.showRemark(error.message);
      return;
    }
    try {
      await lines.openAfter(id);
      link.showRemark(`The line ${id} is not kept any more. These are the oldest ones that are.`);
    } catch {
      link.showRemark(`The line ${id} is not kept any more. These are the newest ones.`);
      follow();
    }
  }
}

async function showSheet(id) {
  let line = lines.all.find((one) => one.id === id);
  try {
    line ??= (await relay.lines({ around: id, limit: 1 })).lines.find((one) => one.id === id);
  } catch (error) {
    link.showRemark(error.message);
  }
  if (line && address.view.sheet === id) sheet.show(line);
}

/** Say how many lines match a search, in all of the journal, up to a number nobody reads. */
async function countMatches(filter) {
  setText($("matches"), "");
  if (!filter.text) return;
  try {
    const found = (await relay.lines({ limit: COUNTED }, filters.asked)).lines.filter((line) => !isNotice(line));
    if (filter !== filters.current) return;
    setText($("matches"), found.length >= COUNTED ? `over ${COUNTED.toLocaleString("en")} lines match` : `${found.length} ${found.length === 1 ? "line matches" : "lines match"}`);
  } catch { /* the list says what is wrong */ }
}

const address = new Address({ location, history, target: window, onView: (view) => show(view) });

// --- controls

document.querySelector("nav").addEventListener("click", (event) => {
  const { tab } = event.target.dataset;
  if (tab && tab !== address.view.tab) address.go({ tab, sheet: null });
});

function showSearch(open) {
  $("controls").hidden = !open;
  $("search").setAttribute("aria-expanded", String(open));
  if (!open) return;
  if (address.view.tab !== "log") address.go({ tab: "log", sheet: null });
  $("text").focus();
}

$("search").onclick = () => showSearch($("controls").hidden);
const more = $("more-sheet");
$("menu").onclick = () => {
  [$("whenday").value, $("whentime").value] = inputTime(Date.now()).split("T");
  $("notify").hidden = !notifications.possible;
  $("notify").setAttribute("aria-pressed", String(notifications.wanted));
  more.showModal();
  $("moretitle").focus();
};
more.querySelector(".close").onclick = () => more.close();
more.addEventListener("click", (event) => event.target === more && more.close());
$("jump").onsubmit = async (event) => {
  event.preventDefault();
  more.close();
  const time = new Date(`${$("whenday").value}T${$("whentime").value}`).getTime();
  try {
    const { lines: found } = await relay.lines({ since: new Date(time).toISOString(), limit: 1 }, filters.asked);
    if (found.length) address.go({ tab: "log", at: found[0].id, sheet: null });
    else if (address.view.at) address.go({ tab: "log", at: null, sheet: null });
    else list.toNewest();
  } catch (error) {
    link.showRemark(error.message);
  }
};
async function save(name, type, make) {
  more.close();
  try {
    const { lines: found } = await relay.lines({ limit: EXPORTED }, filters.asked);
    saveFile(name, type, make(found.filter((line) => !filters.isExcluded(line))));
  } catch (error) {
    link.showText(error.message);
  }
}
$("ndjson").onclick = () => save("log.ndjson", "application/x-ndjson", (found) => found.map((line) => `${JSON.stringify(line)}\n`).join(""));
$("csv").onclick = () => save("log.csv", "text/csv", toCsv);
$("notify").onclick = async () => $("notify").setAttribute("aria-pressed", String(await notifications.toggle()));
$("forget").onclick = () => {
  storage.forgetToken();
  location.reload();
};
new Keys({
  target: document,
  table: $("keys"),
  actions: {
    j: { text: "next line", run: () => list.move(1) },
    k: { text: "line before", run: () => list.move(-1) },
    ArrowDown: { hidden: true, run: () => list.move(1) },
    ArrowUp: { hidden: true, run: () => list.move(-1) },
    Enter: { text: "open the line", run: () => list.current && address.go({ sheet: list.current.id }) },
    "/": { text: "search", run: () => showSearch(true) },
    Escape: { text: "close, or one step back", run: () => ($("controls").hidden ? address.back({ at: null }) : showSearch(false)) },
    g: { text: "newest line", run: () => list.toNewest() },
    "?": { text: "this table", run: () => $("menu").click() },
  },
});

/** Another token: everything is asked again. */
function renew() {
  link.showText("");
  client.setToken(storage.token);
  summary.restart();
}

addEventListener("online", () => client.wake());
addEventListener("offline", () => client.offline());
addEventListener("pageshow", (event) => event.persisted && client.start());
addEventListener("pagehide", () => client.stop());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible") return;
  client.wake();
  summary.start();
});

const { last } = storage;
filters.show(address.view.filter);
if (last?.data?.apps) showSummary(last.data, last.received, true);
client.filter = filters.asked;
show(address.view);
client.start();
summary.start();
if (isSecureContext) navigator.serviceWorker?.register(new URL("sw.js", base)).catch(() => {});
