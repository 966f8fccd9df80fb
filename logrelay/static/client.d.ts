/** Types of client.js and of the messages between a relay and its viewers (docs/protocol.md). */

export type Level = "DEBUG" | "INFO" | "WARNING" | "ERROR";
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** One line. `id` is opaque but for splitId(); an id once seen always means the same line. */
export interface LogLine {
  type: "log";
  id: string;
  level: Level;
  source: string;
  message: string;
  /** `notice` marks what the relay itself says; `severity` is "CRITICAL" on critical lines. */
  context: { [key: string]: Json };
  /** RFC 3339, UTC, six fractional digits. */
  timestamp: string;
  /** The bot that logged it, and its run, one of `Trader.run`. Notices of the relay, and lines kept by an older one, lack both. */
  app?: string;
  run?: string;
  /** At a hub: the machine that it was collected from, and the host of its bot there. */
  edge?: string;
  host?: string;
}

export interface Trader {
  app: string;
  host: string;
  pid: number;
  /** One process lifetime; a trader that was restarted is another run. */
  run: string;
  state: "connected" | "quiet" | "lost" | "closed" | "crashed" | "gone" | "unknown";
  started: string;
  last_line: string | null;
  /** Seconds since its last line, by a clock that never steps; null when it has said nothing. */
  last_line_age_s?: number | null;
  /** At a hub: the machine it is on. While that is unreachable the state is "unknown", since then. */
  edge?: string;
  last_state?: string;
  unknown_since?: string | null;
  /** Seconds since its last line; null when it is not connected. */
  quiet_s: number | null;
  last_seq: number;
  /** The relay was restarted and waits for it; `state` is the one of before. */
  awaited?: true;
  /** It is closed, and took 20 seconds at the most: a job. */
  brief?: true;
}

export interface ConnectionMessage {
  type: "connection";
  status: "connected";
  /** The relay's own port speaks TLS. */
  encrypted?: boolean;
  head: string;
  oldest: string;
  traders: Trader[];
  /** There are more traders than fit into a message. */
  more_traders?: true;
  version: string;
  /** At a hub: the machines whose lines are collected. */
  edges?: { edge: string; state: "reachable" | "unreachable"; since: string | null; [key: string]: Json | undefined }[];
}

export interface ErrorMessage {
  type: "error";
  code: string;
  message: string;
}

/** A request was met, and something in it means nothing to the relay: a name that was misspelt. */
export interface NoteMessage {
  type: "note";
  code: "unknown";
  message: string;
}

/** The answer to GET /alerts, and to a request to silence a bot or to end that. */
export interface Alerts {
  type: "alerts";
  /** False: no alerts are set up, and all that follows is empty. */
  enabled: boolean;
  /** False while their process is being started. */
  running: boolean;
  /** What lasts, and what was told within its cooldown; newest first, at most 100. */
  active: {
    rule: string;
    kind: "crashed" | "gone" | "quiet" | "journal" | "disk" | "edge" | "critical" | "error" | "gap" | "lines";
    /** "" where it is about no bot, or about several. */
    app: string;
    active: boolean;
    since: string;
    last: string;
    /** How often; of a gap, how many lines. */
    count: number;
    told: boolean;
    silenced: boolean;
    level?: Level | "CRITICAL";
    source: string;
    message: string;
    /** The last line of the exception; "" without one. */
    reason: string;
    /** The newest line that tells of it; "" where none does. */
    id: string;
  }[];
  silences: { app: string; until: string }[];
  services: { rule: string; service: string; waiting: number; oldest: string | null; error: string }[];
  heartbeat: { withheld: string; error: string; sent: string | null } | null;
}

/** No alerts about bots that match `app`, for so many seconds; the answer is `Alerts` or an error. */
export type SilenceRequest = { type: "silence"; app: string; for_s: number } | { type: "unsilence"; app: string };

/** The answer to GET /healthz: with status 200, and 503 while there is trouble. Holders of limited tokens get less. */
export interface Healthz {
  status: "ok" | "trouble";
  /** What is wrong, only with `trouble`. */
  reason?: string;
  version?: string;
  epoch?: string;
  head?: string;
  oldest?: string;
  /** Seconds since the relay started. */
  uptime?: number;
  /** Open WebSockets. */
  viewers?: number;
  journal: { trouble: string | null; bytes?: number; damaged_lines?: number };
  /** `last_line_age_seconds` is an older name of `last_line_age_s`. */
  traders: (Omit<Trader, "last_seq"> & { last_line_age_seconds?: number })[];
}

/** The answer to GET /readyz: with status 200 when it is ready, else 503. */
export interface Readyz {
  ready: boolean;
  reason?: string;
}

/** Lines by level; CRITICAL is not in ERROR. */
export type Counts = Record<Level | "CRITICAL", number>;
export interface Point {
  id: string;
  timestamp: string;
}

/** The answer to GET /summary. */
export interface Summary {
  type: "summary";
  head: string | null;
  oldest: string | null;
  since: string | null;
  after: string | null;
  until: string;
  lines: Counts;
  apps: {
    app: string;
    state: Trader["state"] | null;
    awaited?: true;
    brief?: true;
    lines: Counts;
    first: Point | null;
    last: (Point & { level: Level | null; message: string | null }) | null;
    crashes: number;
    gaps: number;
    /** Lines that are missing in the gaps. */
    lost: number;
  }[];
  problems: {
    /** Names the group, the same in every answer. */
    group: string;
    level: Level;
    severity?: "CRITICAL";
    app: string | null;
    source: string;
    message: string;
    exception: string | null;
    count: number;
    first: Point;
    last: Point;
  }[];
  /** Newest first. */
  crashes: (Point & { app: string | null; run: string | null; message: string | null })[];
  gaps: (Point & { app: string | null; cause: string | null; count: number })[];
  /** How many there are beyond what is listed. */
  more_apps: number;
  more_problems: number;
  more_crashes: number;
  more_gaps: number;
}

/** What to see: lines at or above `level`, from sources and apps that match, with the text and the context fields. */
export interface Filter {
  level?: Level | "CRITICAL" | "";
  source?: string[];
  app?: string[];
  run?: string[];
  edge?: string[];
  /** Looked for in the message and in the values of the context. */
  text?: string;
  where?: string[];
  /** Which notices of the relay come besides; "relevant" unless told. */
  notices?: "relevant" | "no" | "all";
}

/** What a line of the relay says about lines that are missing: docs/protocol.md, notices. */
export interface Gap {
  notice: "gap";
  cause: string;
  count: number;
  /** Ids, or seqs of a run, by `cause`. */
  first?: Json;
  last?: Json;
  [key: string]: Json | undefined;
}

/** What is needed of a WebSocket: the one of browsers, of React Native, of Node.js 22 and of the package `ws` are such. */
export type WebSocketClass = new (url: string, protocols?: string[]) => {
  readonly readyState: number;
  send(text: string): void;
  close(): void;
};

export type State = "connecting" | "open" | "waiting" | "refused" | "stopped";

export interface Options {
  /** ws:// or wss://, without a query. */
  url: string;
  /** The class to connect with, where there is none by this name already: Node.js before 22 takes that of the package `ws`. */
  WebSocket?: WebSocketClass;
  /** A name for this device: where `after` is not given, the relay goes on behind what the device has received. */
  device?: string;
  token?: string | null;
  filter?: Filter;
  /** Lines to begin with; 500 unless told. */
  tail?: number;
  /** An id to begin behind, instead of `tail`. */
  after?: string | null;
  /** When more lines than this were missed, begin again with `tail` instead of resuming. */
  maxResume?: number;
  /** Milliseconds of silence until the relay is asked whether it is there (20,000), and that the answer may take (10,000). */
  pingAfter?: number;
  pongWithin?: number;
  /** The longest wait before another attempt to connect, in milliseconds; 15,000 unless told. The real one is random below it. */
  retryLongest?: number;
  /** Lines in order, none twice. */
  onLines(lines: LogLine[]): void;
  /** What was shown so far does not join what comes next: begin an empty list. */
  onReset?(): void;
  /** First message of each connection. */
  onConnection?(message: ConnectionMessage): void;
  /** The answer to history(before, ...); `more` says whether to ask again. */
  onHistory?(lines: LogLine[], more: boolean, before: string): void;
  /** Lines are missing, and `line`, which onLines() gets as well, says so. After `unsynced`, forget those that inGap() tells. */
  onGap?(gap: Gap, line: LogLine): void;
  /** The token is good no longer, or was never. It is tried again now and then; setToken() tries another at once. */
  onDenied?(reason: string): void;
  onError?(message: ErrorMessage): void;
  /** The answer to silence(). */
  onAlerts?(message: Alerts): void;
  /** Something that was asked for means nothing to this relay. */
  onNote?(message: NoteMessage): void;
  onState?(state: State, detail: string): void;
  /** `greeted` is false when the server never said a word; `wait` is in milliseconds. */
  onLost?(lost: { code: number; reason: string; greeted: boolean; wait: number }): void;
}

export const BATCH_PROTOCOL: "logrelay.v1.batch";
/** The levels of a line, lowest first. */
export const LEVELS: readonly Level[];
export function splitId(id: string): { epoch: string; seq: number };
export function gapOf(line: LogLine): Gap | null;
/** Whether the line `id` lies in a gap whose ends are ids. */
export function inGap(gap: Gap, id: string): boolean;

export class LogRelayClient {
  constructor(options: Options);
  /** The last line seen; the next connection resumes behind it. */
  lastId: string | null;
  readonly filter: Filter;
  start(): void;
  stop(): void;
  /** Connect now, or check now that the connection is alive. */
  wake(): void;
  /** The network is known to be gone. */
  offline(): void;
  setToken(token: string): void;
  subscribe(filter: Filter): void;
  history(before: string, limit: number): boolean;
  /** Have no alerts sent about bots that match a glob for so many seconds; 0: end that. False: not connected. */
  silence(app: string, seconds: number): boolean;
}
