/**
 * The web viewer: makes the parts of the page, introduces them to each other, and starts the client.
 *
 * Owns: which part is called for which event. It must not know how any part does its work, and no part knows another one that it was not
 * given here. Every element is looked up here, once. Read `static/list.js` next.
 *
 * Each part gets all it needs when it is made. The functions that are given away may name a part made below them:
 * they are called for events only, and the first event comes after start().
 */

import { LogRelayClient } from "./client.js";
import { buildDetails } from "./detail.js";
import { Diagnosis } from "./diagnosis.js";
import { Filters } from "./filters.js";
import { LineList, MAX_LINES } from "./list.js";
import { Login } from "./login.js";
import { Status } from "./status.js";
import { PageStorage } from "./storage.js";
import { Traders } from "./traders.js";

/** Lines to begin with, and after an absence of more than MAX_LINES. */
const TAIL = 500;

/** Hosts whose bytes do not leave the machine. */
const THIS_MACHINE = /^(.+\.)?localhost$|^127\.[0-9.]+$|^\[::1\]$/;

const base = new URL(".", location.href);
const socket = new URL("ws", base);
socket.protocol = socket.protocol === "https:" ? "wss:" : "ws:";

const $ = (id) => document.getElementById(id);
$("plain").hidden = base.protocol === "https:" || THIS_MACHINE.test(base.hostname);
const parts = (...ids) => Object.fromEntries(ids.map((id) => [id, $(id)]));

const storage = new PageStorage({ location, history, session: sessionStorage });
const status = new Status({ parts: parts("state", "age"), traders: new Traders($("traders")) });
const login = new Login({
  form: $("login"),
  input: $("token"),
  token: storage.token,
  onToken: (token) => {
    storage.saveToken(token);
    diagnosis.showText("");
    client.setToken(token);
  },
});
const diagnosis = new Diagnosis({
  element: $("problem"),
  url: new URL("logs", base),
  login,
  isOpen: () => status.open,
});
const filters = new Filters({
  parts: parts("controls", "levels", "text", "conditions"),
  asked: storage.asked,
  save: (parameters) => storage.saveAddress(parameters),
  onChange: (filter) => {
    diagnosis.showText("");
    client.subscribe(filter);
  },
});
const list = new LineList({
  parts: parts("scroller", "lines", "older", "empty", "fresh", "pause"),
  emptyText: () => (!status.open ? "Not connected yet."
    : filters.active ? "No line matches so far." : "Nothing has been logged yet."),
  buildDetails: (line) => buildDetails(line, (kind, value) => filters.add(kind, value)),
  askOlder: (id, limit) => client.history(id, limit),
  restart: () => client.subscribe(client.filter),
});
const client = new LogRelayClient({
  url: socket.href,
  token: login.token,
  filter: filters.current,
  tail: TAIL,
  maxResume: MAX_LINES,
  onLines: (lines) => {
    list.add(lines);
    status.saw(lines);
  },
  onReset: () => list.reset(),
  onHistory: (lines, more, before) => list.addOlder(lines, more, before),
  onError: (error) => {
    diagnosis.showText(error.message);
    list.olderFailed();
  },
  onConnection: (message) => {
    diagnosis.showText("");
    login.hide();
    status.greeted(message, client.lastId, filters.active);
  },
  onState: (state, detail) => status.setState(state, detail),
  onLost: ({ code, reason, greeted }) => {
    list.olderFailed();
    if (!greeted) diagnosis.explain();
    else if (reason) diagnosis.showText(`The connection ended: ${reason}${code > 1001 ? ` (${code})` : ""}.`);
  },
});

addEventListener("online", () => client.wake());
addEventListener("offline", () => client.offline());
addEventListener("pageshow", (event) => event.persisted && client.start());
addEventListener("pagehide", () => client.stop());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && client.wake());
client.start();
