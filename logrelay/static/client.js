/**
 * The relay's JavaScript client: one live stream of log lines that survives whatever the network does.
 *
 * Owns: connecting, resuming behind the last line, noticing a dead connection, the subscription. It must not
 * know the page: it needs nothing but a WebSocket, so it is also the npm package logrelay-viewer, for Node.js and
 * React Native. It keeps no lines: what comes is handed on at once. Types are in client.d.ts; the messages are
 * described in docs/protocol.md. Read `static/main.js` next.
 */

/** Milliseconds of silence after which the server is asked whether it is there. Below the usual 30-60 s of proxies. */
const PING_AFTER = 20_000;
/** Milliseconds the answer may take; a phone that changes cells needs some seconds. */
const PONG_WITHIN = 10_000;
/** The same when the page was just woken: a socket that died in its sleep should not look alive for long. */
const PONG_WITHIN_AWAKE = 4_000;
/** Milliseconds from connecting to the first message before the attempt is given up. */
const OPEN_WITHIN = 15_000;
/** First and longest wait before connecting again; the real wait is random below it, so that viewers spread. */
const RETRY_FIRST = 500;
const RETRY_LONGEST = 15_000;
/** A token that was refused is tried again after so long at the least, whatever `retryLongest` says. */
const RETRY_DENIED = 15_000;

/** Close code of a subscription that can never be met: asking again unchanged is pointless. */
const REFUSED = 4400;
/** Close codes of a token that is good no longer, or was never: it is tried again seldom, until setToken(). */
const DENIED = [4401, 4403];

export const BATCH_PROTOCOL = "logrelay.v1.batch";

/** The levels of a line, lowest first. CRITICAL is an ERROR whose context says so. */
export const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"];

/** Split an id into its epoch and its number. A journal numbers its lines without holes, through all its epochs. */
export function splitId(id) {
  const dash = id.lastIndexOf("-");
  return { epoch: id.slice(0, dash), seq: Number(id.slice(dash + 1)) };
}

/** Return what a line says about lines that are missing, or null: most lines say nothing of the kind. */
export function gapOf({ source, context }) {
  return source === "logrelay" && context.notice === "gap" ? context : null;
}

/** Whether the line `id` is one of a gap whose ends are ids. Those of the cause `unsynced` were shown and do not count. */
export function inGap(gap, id) {
  const [first, last, { epoch, seq }] = [splitId(gap.first ?? ""), splitId(gap.last ?? ""), splitId(id)];
  return first.epoch === epoch && last.epoch === epoch && first.seq <= seq && seq <= last.seq;
}

export class LogRelayClient {
  #options;
  #socket = null;
  #timer = null; // the next heartbeat check, or the next attempt
  #retry = RETRY_FIRST;
  #heard = 0;
  #pinged = 0;
  #pongWithin = PONG_WITHIN;
  #asked = 0; // subscriptions without an answer yet: until the last answer, lines belong to an older one
  #confirmed; // the filter of the last subscription that was accepted
  #kept = 0; // how many lines the relay keeps
  #history = null; // the id whose older lines are being asked for; answers do not repeat it
  #stopped = true;

  /** See client.d.ts for the options. Nothing happens before start(). */
  constructor(options) {
    this.#options = { WebSocket: globalThis.WebSocket, filter: {}, tail: 500, maxResume: Infinity, pingAfter: PING_AFTER,
      pongWithin: PONG_WITHIN, retryLongest: RETRY_LONGEST, ...options };
    if (!this.#options.WebSocket) throw new Error("there is no WebSocket here: give one, such as that of the npm package ws");
    this.lastId = options.after ?? null;
    this.filter = this.#confirmed = this.#options.filter;
  }

  start() {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#connect();
  }

  /** Close for good; start() begins again behind the last line. */
  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#drop();
    this.#setState("stopped");
  }

  setToken(token) {
    this.#options.token = token;
    this.wake();
  }

  /** Connect now, or find out now whether the connection is alive: for `online`, a page shown again, a tap. */
  wake() {
    if (this.#stopped) return;
    if (this.#socket?.readyState === 1) {
      if (this.#heard) this.#ping(PONG_WITHIN_AWAKE);
    } else if (!this.#socket) {
      this.#retry = RETRY_FIRST;
      this.#connect();
    }
  }

  /** The network is known to be gone: an open socket would only pretend. */
  offline() {
    if (!this.#stopped) this.#lost("offline");
  }

  /** Ask for other lines, the newest `tail` first. `onReset` tells when lines of the new kind begin. */
  subscribe(filter) {
    this.filter = filter;
    this.lastId = null;
    this.#subscribe();
    this.wake(); // after a refusal nothing is open and nothing is tried
  }

  /** Have no alerts sent about bots that match a glob for so many seconds, 0: end that; `onAlerts` or `onError` is told. */
  silence(app, seconds) {
    return this.#send(seconds ? { type: "silence", app, for_s: seconds } : { type: "unsilence", app });
  }

  /** Ask for up to `limit` lines before the line `before`, for `onHistory`. False: not connected, or busy with another. */
  history(before, limit) {
    if (this.#history !== null || !this.#send({ type: "history", before, limit })) return false;
    this.#history = before;
    return true;
  }

  #setState(state, detail = "") {
    this.#options.onState?.(state, detail);
  }

  #address() {
    const { device, tail } = this.#options;
    const asked = { ...this.filter, ...(this.lastId ? { after: this.lastId } : { tail }), device };
    const query = Object.entries(asked).flatMap(([name, given]) => [given].flat()
      .filter((value) => value !== "" && value !== undefined).map((value) => `${name}=${encodeURIComponent(value)}`));
    return `${this.#options.url}?${query.join("&")}`; // by hand: the URL class of React Native cannot build queries
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#setState("connecting");
    const protocols = [BATCH_PROTOCOL];
    if (this.#options.token) protocols.push(`bearer.${this.#options.token}`);
    let socket;
    try {
      socket = new this.#options.WebSocket(this.#address(), protocols);
    } catch (error) { // a token with characters that no header may have
      this.#lost(error.message);
      return;
    }
    this.#socket = socket;
    this.#asked = 0;
    this.#history = null;
    let greeted = false;
    socket.onmessage = (event) => {
      this.#heard = Date.now();
      if (!greeted) {
        greeted = true;
        this.#retry = RETRY_FIRST;
        this.#watch();
      }
      this.#receive(event.data);
    };
    let error = "";
    socket.onerror = (event) => { error = event.message ?? ""; }; // only Node's say more than onclose does
    socket.onclose = (event) => {
      // A program without an Origin is refused in HTTP, which Node's WebSocket tells in words alone.
      const code = /\b401\b/.test(error) ? DENIED[0] : event.code;
      this.#lost(event.reason || error, code, greeted);
    };
    this.#timer = setTimeout(() => this.#lost("no answer"), OPEN_WITHIN);
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.onerror = () => {}; // the package ws throws what nobody listens to
    socket.close();
  }

  #lost(reason, code = 0, greeted = true) {
    clearTimeout(this.#timer);
    this.#drop();
    if (code === REFUSED) {
      this.#setState("refused", reason);
      return;
    }
    if (DENIED.includes(code)) this.#retry = RETRY_DENIED;
    const wait = Math.round(this.#retry * (0.5 + Math.random() / 2));
    this.#retry = Math.min(this.#retry * 2, this.#options.retryLongest);
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#setState("waiting", reason);
    this.#options.onLost?.({ code, reason, greeted, wait });
    if (DENIED.includes(code)) this.#options.onDenied?.(reason);
  }

  // --- heartbeat: the server's own pings are invisible to a script, and a dead socket looks open

  #watch() {
    clearTimeout(this.#timer);
    const now = Date.now();
    const waiting = this.#pinged > this.#heard;
    if (waiting && now - this.#pinged >= this.#pongWithin) {
      this.#lost("the connection is silent");
      return;
    }
    const { pingAfter, pongWithin } = this.#options;
    if (!waiting && now - this.#heard >= pingAfter) {
      this.#ping(pongWithin);
      return;
    }
    const next = waiting ? this.#pinged + this.#pongWithin : this.#heard + pingAfter;
    this.#timer = setTimeout(() => this.#watch(), next - now);
  }

  #ping(pongWithin) {
    this.#pongWithin = pongWithin;
    this.#pinged = Math.max(Date.now(), this.#heard + 1);
    this.#send({ type: "ping" });
    this.#watch();
  }

  #send(message) {
    if (this.#socket?.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // --- messages

  #receive(data) {
    const message = JSON.parse(data);
    if (Array.isArray(message)) this.#lines(message);
    else if (message.type === "log") this.#lines([message]);
    else if (message.type === "connection") this.#greeted(message);
    else if (message.type === "history") {
      const before = this.#history;
      this.#history = null;
      this.#options.onHistory?.(message.logs, message.more, before);
    } else if (message.type === "subscribed" && this.#asked > 0 && --this.#asked === 0) {
      this.#confirmed = this.filter;
      this.#options.onReset?.();
    } else if (message.type === "note") {
      this.#options.onNote?.(message);
    } else if (message.type === "alerts") {
      this.#options.onAlerts?.(message);
    } else if (message.type === "error") {
      this.#history = null;
      if (this.#asked > 0 && --this.#asked === 0) this.filter = this.#confirmed; // the old one goes on
      this.#options.onError?.(message);
    }
  }

  #greeted(message) {
    const last = this.lastId && splitId(this.lastId);
    const [head, oldest] = [message.head, message.oldest].map(splitId);
    this.#confirmed = this.filter;
    this.#setState("open");
    this.#options.onConnection?.(message);
    this.#kept = head.seq - oldest.seq;
    // Each start of the relay has another epoch, and its numbers go on: they tell how far behind this is.
    if (last && head.seq - last.seq > this.#options.maxResume) {
      this.#skipToNewest();
    } else if (!last) {
      this.#options.onReset?.();
    }
  }

  /** Away for so long that the newest lines are worth more than all lines. */
  #skipToNewest() {
    this.lastId = null;
    this.#subscribe();
  }

  #subscribe() {
    const { level, ...rest } = this.filter;
    const others = Object.fromEntries(Object.entries(rest).filter(([, value]) => value?.length));
    // The level is always said: a subscription without any condition would keep the conditions there are.
    const message = { type: "subscribe", channel: "logs", level: level || LEVELS[0], ...others, tail: this.#options.tail };
    if (this.#send(message)) this.#asked += 1;
  }

  #lines(lines) {
    if (this.#asked > 0) return;
    const unknown = (line) => gapOf(line)?.cause === "epoch";
    if (this.#kept > this.#options.maxResume && lines.some(unknown)) {
      this.#skipToNewest(); // the relay does not know the id, and is about to send all that it keeps
      return;
    }
    this.lastId = lines.at(-1)?.id ?? this.lastId;
    if (this.#options.onGap) lines.forEach((line) => gapOf(line) && this.#options.onGap(gapOf(line), line));
    this.#options.onLines(lines);
  }
}
