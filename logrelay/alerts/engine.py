"""What lines and notices mean for the rules: which alerts there are, and what is remembered of them.

Owns: `Engine`, which takes committed lines in the order of the journal and hands out alerts. It must not know where
lines come from, how an alert is worded or sent, or what time it is: all of that are arguments. Pure. Read
`alerts/text` next.

What changes is handed out as rows by name (`take_changes`), so that whoever keeps them writes rows, alerts and the
position in the journal in one transaction.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from math import inf
from typing import Any, NamedTuple

from logrelay.alerts.bots import Bots
from logrelay.alerts.records import BEYOND, MAX_TEXT_CHARS, Alert, Matter, Seen, matter_of
from logrelay.alerts.release import Release, class_of
from logrelay.config.alert_rules import AlertRule
from logrelay.errors import RequestError
from logrelay.fanout.filters import apps_of_notice, field_text, name_matches, parse_filter
from logrelay.fanout.problem_groups import problem_of
from logrelay.fanout.summary import rank_of
from logrelay.model import CRITICAL, ERROR, RELAY_SOURCE, WARNING, Line

MAX_MATTERS = 1000
"""Matters of a rule and a class at once, like the problems of a summary; what is beyond is counted together. A thousand
different errors must not take the name of the bot from a crash."""

RECOVER_S = 30.0
"""How long a state has to be over before that is told: a bot that crashes at its start is back every few seconds."""

LOOK_S = 60.0
"""How often it is looked whether the hours have passed in which silence is normal."""

MAX_FIELD_CHARS = 100
"""Of a field that a rule names, how much is shown."""

SOME_RUN = 1
"""Stands for the number of a line's run, of which no rule knows: any but that of notices."""

FORGOTTEN_S = 7 * 86_400.0
"""How long a state is remembered that does not end: a bot that crashed and was never started again."""

MAX_SILENCES = 100
"""Bots that are silenced at once."""

OWN_GAPS = ("lag", "retention")
"""Gaps that tell the alerts themselves that lines were not looked at."""
IGNORED_GAPS = ("epoch", "unsynced", "away", "purged")
"""Gaps of one viewer that tell of nothing new, and of lines that somebody deleted on purpose."""

LINK = "\nlink"
"""The key of the state in which a hub relay has no connection to the servers; no edge has such a name."""

BEGINNINGS: Mapping[str, tuple[str, str]] = {
    "trouble": ("journal", "journal"),
    "full": ("journal", "journal"),
    "upkeep_trouble": ("journal", "upkeep"),
    "disk_low": ("disk", "disk"),
    "log_pinned": ("disk", "log"),
    "edge_unreachable": ("edge", ""),
    "collect_lost": ("edge", LINK),
}
"""By the state of a notice: the kind and the key of the matter that begins; the key "" is the name of the edge."""

ENDS: Mapping[str, tuple[str, str]] = {
    "recovered": ("journal", "journal"),
    "upkeep_recovered": ("journal", "upkeep"),
    "disk_recovered": ("disk", "disk"),
    "log_released": ("disk", "log"),
    "edge_back": ("edge", ""),
    "collect_back": ("edge", LINK),
}

OF_ONE_START = tuple(place for place in BEGINNINGS.values() if place[1])
"""States that a relay tells the end of only if it has told their beginning: a relay that starts begins without them.
What is known of edges is in the journal, and outlives it."""

LOSSES = ("stream", "forward_lost")
"""States of notices that tell of lines lost between machines: gaps, by another name."""


class LocalTime(NamedTuple):
    """A time where the owner lives."""

    day: int
    """0 is Monday."""
    minute: int
    """Of the day."""


class Engine:
    """Judges lines by the rules. Belongs to one thread.

    `local` tells what time it is where the owner lives; `expected` are bots that should always be up; `kept` are the
    rows that an earlier one handed out.
    """

    def __init__(
        self,
        rules: Iterable[AlertRule],
        *,
        local: Callable[[float], LocalTime],
        expected: Iterable[str] = (),
        kept: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        kept = kept or {}
        self._local = local
        self._judges: list[_Judge] = []
        self.refused: list[tuple[str, str]] = []
        """Rules that cannot be used, and why: the others are worth more than the end of all of them."""
        for rule in rules:
            try:
                self._judges.append(_Judge(rule, kept))
            except RequestError as error:
                self.refused.append((rule.name, str(error)))
        self._bots = Bots(expected, kept.get("bots"))
        self._silences: dict[str, float] = {app: float(until) for app, until in kept.get("silences", {}).items()}
        self._relay_start = str(kept.get("relay", {}).get("start", ""))
        self._changed: set[str] = set()
        names = {judge.rule.name for judge in self._judges}
        self._changed |= {row for row in kept if row.partition("\0")[2] and row.split("\0")[1] not in names}
        self.silenced_total = 0
        """Times something happened that nobody was told of because its bot was silenced."""

    # --- what comes in ------------------------------------------------------------------------------------------

    @property
    def lowest_level(self) -> int:
        """The lowest rank of the lines that any rule needs; notices come besides."""
        return min((judge.lowest_level for judge in self._judges), default=CRITICAL)

    def take(self, line: Mapping[str, Any], time_us: int, now: float) -> None:
        """Judge a line or a notice, a viewer message of type `log`; `time_us` is its timestamp."""
        context = line.get("context") or {}
        if "app" not in line and line.get("source") == RELAY_SOURCE:
            self._take_notice(line, context, time_us, now)
            return
        rank = rank_of(line["level"], context)
        app = str(line.get("app", ""))
        for judge in self._judges:
            if rank >= judge.lowest_level:
                judge.take_line(line, context, app, rank, time_us, now, self._changed)

    def _take_notice(self, line: Mapping[str, Any], context: Mapping[str, Any], time_us: int, now: float) -> None:
        notice, state = context.get("notice"), str(context.get("state", ""))
        apps = apps_of_notice(context)
        app = apps[0] if len(apps) == 1 else ""
        rank, count = rank_of(line["level"], context), context.get("count")
        number = count if isinstance(count, int) and count > 0 else 1
        reason = str(context.get("reason", ""))[:MAX_TEXT_CHARS]
        seen = Seen(time_us, rank, RELAY_SOURCE, str(line["message"])[:MAX_TEXT_CHARS], reason, str(line["id"]))
        if notice == "gap":
            self._take_gap(context, app, number, seen, now)
        elif notice == "trader":
            if not context.get("suppressed"):
                self._bots.note(str(context.get("run", "")), app, state, time_us / 1e6 if state != "quiet" else
                                _since(context.get("last_line"), time_us))  # fmt: skip
                self._changed.add("bots")
            if state == "crashed" and rank >= ERROR:
                self._begin("crashed", app, app, seen, now, number, lasts=bool(app) and not self._bots.is_up(app))
            elif state == "gone" and rank >= WARNING and not self._bots.is_up(app):
                self._begin("gone", app, app, seen, now, number, lasts=bool(app), once=True)
            elif state == "connected":
                self._over(("crashed", "gone"), app, now)
        elif state in LOSSES and rank >= WARNING:
            messages = context.get("messages")
            number = messages if isinstance(messages, int) and messages > 0 else number
            self._begin("gap", f"\n{state}", "", seen, now, number, lasts=False)
        elif state in BEGINNINGS:
            kind, key = BEGINNINGS[state]
            self._begin(kind, key or str(context.get("edge") or app), app, seen, now, 1, lasts=True, once=True)
        elif state in ENDS:
            kind, key = ENDS[state]
            self._over((kind,), key or str(context.get("edge") or app), now)
        elif state == "evicted" and context.get("cause") == "space":
            self._begin("disk", "evicted", "", seen, now, number, lasts=False)
        elif "damaged_lines" in context:
            self._begin("journal", "damage", "", seen, now, 1, lasts=False)

    def _take_gap(self, context: Mapping[str, Any], app: str, number: int, seen: Seen, now: float) -> None:
        cause = str(context.get("cause", ""))
        if cause in IGNORED_GAPS or seen.rank < WARNING:
            return
        key = "alerts" if cause in OWN_GAPS else f"{app}\n{cause}"
        self._begin("gap", key, app, seen, now, number, lasts=False)

    def set_relay(self, start: str, now: float) -> None:
        """Take over which start of the relay this is: an earlier one can tell the end of nothing any more.

        What lasts is told of again within seconds; then it is the same state, and not told once more.
        """
        if start == self._relay_start:
            return
        self._relay_start = start
        self._changed.add("relay")
        for kind, key in OF_ONE_START:
            self._over((kind,), key, now)

    def set_trouble(self, trouble: str | None, now: float) -> None:
        """Take over whether the relay has trouble with its journal now; a restart ends it without a notice."""
        if not trouble:
            self._over(("journal",), "journal", now)

    def set_traders(self, traders: Iterable[Mapping[str, Any]], now: float) -> None:
        """Take over the relay's own list of the traders, as in the message `connection`."""
        self._bots.replace(traders, now)
        self._changed.add("bots")
        for judge in self._judges:
            for matter in judge.active(("crashed", "gone")):
                if self._bots.is_up(matter.app):
                    judge.over((matter.kind,), matter.key, now, self._changed)

    def _begin(
        self, kind: str, key: str, app: str, seen: Seen, now: float, count: int, *, lasts: bool, once: bool = False
    ) -> None:
        for judge in self._judges:
            if judge.wants(kind, app):
                judge.begin(kind, key, app, seen, now, count, self._changed, lasts=lasts, once=once)

    def _over(self, kinds: tuple[str, ...], key: str, now: float) -> None:
        for judge in self._judges:
            judge.over(kinds, key, now, self._changed)

    # --- silences -----------------------------------------------------------------------------------------------

    def silence(self, app: str, until: float) -> bool:
        """Send nothing about bots that match the glob until then; False: there are too many silences."""
        if app not in self._silences and len(self._silences) >= MAX_SILENCES:
            return False
        self._silences[app] = until
        self._changed.add("silences")
        return True

    def unsilence(self, app: str) -> bool:
        """End a silence; False: there is none."""
        self._changed.add("silences")
        return self._silences.pop(app, None) is not None

    def silences(self, now: float) -> dict[str, float]:
        """Return until when bots are silenced, by glob."""
        return {app: until for app, until in self._silences.items() if until > now}

    def _is_silenced(self, app: str, now: float) -> bool:
        return any(name_matches((glob,), app) for glob, until in self._silences.items() if until > now)

    def _silenced_at(self, now: float) -> Callable[[str], bool]:
        return lambda app: bool(app) and self._is_silenced(app, now)

    # --- what goes out ------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Alert]:
        """Return the alerts that are to be sent now, and note them as told."""
        over = [app for app, until in self._silences.items() if until <= now]
        for app in over:
            self.unsilence(app)
        self._judge_silence(now)
        alerts: list[Alert] = []
        for judge in self._judges:
            alerts += judge.due(now, self._local(now), self._silenced_at(now), self._changed)
            self.silenced_total += judge.take_silenced()
        return alerts

    def next_due(self, now: float) -> float:
        """Return when `due` may have something, if nothing else comes in; infinity: never."""
        earliest = min((judge.next_due(now, self._silenced_at(now)) for judge in self._judges), default=inf)
        silent = self._bots.silent(now)
        for judge in self._judges:
            for app, (_, since) in silent.items():
                earliest = min(earliest, judge.silent_at(app, since, now))
        return min(earliest, min(self._silences.values(), default=inf))

    def _judge_silence(self, now: float) -> None:
        silent = self._bots.silent(now)
        local = self._local(now)
        for judge in self._judges:
            judge.judge_silence(silent, self._bots.speaks, now, local, self._changed)

    def active(self, now: float) -> list[dict[str, Any]]:
        """Return what is not over, and what was told within its cooldown, for who looks: JSON objects, newest first."""
        found = [matter for judge in self._judges for matter in judge.shown(now)]
        return [
            {
                "rule": matter.rule,
                "kind": matter.kind,
                "app": matter.app,
                "active": matter.active,
                "since_us": matter.since_us,
                "last_us": matter.last_us,
                "count": matter.count,
                "told": bool(matter.told_at),
                "rank": matter.rank,
                "silenced": self._is_silenced(matter.app, now),
                "source": matter.source,
                "message": matter.message,
                "reason": matter.reason,
                "id": matter.id,
            }
            for matter in sorted(found, key=lambda matter: (not matter.active, -matter.last_us))
        ]

    @property
    def kept_back_total(self) -> int:
        """Matters held back by quiet hours or by the most alerts in an hour, since the start."""
        return sum(judge.release.kept_back for judge in self._judges)

    def take_changes(self) -> dict[str, dict[str, Any] | None]:
        """Return the rows that have changed since the last call; None: the row is gone."""
        rows: dict[str, dict[str, Any] | None] = {}
        by_name = {judge.rule.name: judge for judge in self._judges}
        for row in self._changed:
            if row == "bots":
                rows[row] = self._bots.as_json()
            elif row == "silences":
                rows[row] = dict(self._silences)
            elif row == "relay":
                rows[row] = {"start": self._relay_start}
            else:
                judge = by_name.get(row.split("\0")[1])
                rows[row] = None if judge is None else judge.row(row)
        self._changed.clear()
        return rows


class _Judge:
    """One rule, and what it has to tell of."""

    def __init__(self, rule: AlertRule, kept: Mapping[str, Mapping[str, Any]]) -> None:
        self.rule = rule
        self.release = Release(rule, kept.get(f"release\0{rule.name}"))
        mine = f"matter\0{rule.name}\0"
        found = [matter_of(row) for name, row in kept.items() if name.startswith(mine)]
        self._matters = {f"matter\0{matter.name}": matter for matter in found}
        self._sizes = Counter(class_of(matter.kind) for matter in found)
        """Matters by class."""
        self._normal_until: dict[str, float] = {}
        """Until when silence was normal last, by bot."""
        self._silenced = 0
        self._times: deque[int] = deque(maxlen=rule.rate_count)
        """Of the newest lines that count for a rate, microseconds; as many as it asks for."""
        self._filter = parse_filter(
            {
                "app": rule.apps,
                "source": rule.sources,
                "text": (rule.text,) if rule.text else (),
                "where": rule.where,
            }
        )

    @property
    def lowest_level(self) -> int:
        """The lowest rank of the lines that the rule needs."""
        kinds = self.rule.kinds
        levels = (
            [self.rule.level] * ("lines" in kinds) + [ERROR] * ("error" in kinds) + [CRITICAL] * ("critical" in kinds)
        )
        return min(levels, default=CRITICAL)

    def wants(self, kind: str, app: str) -> bool:
        """Tell whether the rule tells of such a thing of a bot; what concerns no bot concerns every rule."""
        return kind in self.rule.kinds and (not self.rule.apps or not app or name_matches(self.rule.apps, app))

    def take_line(
        self,
        line: Mapping[str, Any],
        context: Mapping[str, Any],
        app: str,
        rank: int,
        time_us: int,
        now: float,
        changed: set[str],
    ) -> None:
        """Count a line of a bot."""
        rule, source, message = self.rule, str(line["source"]), str(line["message"])
        if not self._filter.matches(Line(0, time_us, rank, source, SOME_RUN, b"", message, context, app)):
            return
        kind = next(
            (
                kind
                for kind, least in (("critical", CRITICAL), ("error", ERROR), ("lines", rule.level))
                if kind in rule.kinds and rank >= least
            ),
            None,
        )
        if kind is None:
            return
        problem = problem_of(app, source, message, context)
        key = problem.group
        count = 1
        if kind == "lines" and rule.rate_s:
            self._times.append(time_us)
            if len(self._times) < rule.rate_count or self._times[-1] - self._times[0] > rule.rate_s * 1e6:
                return
            key = "rate"
            count = 1 if f"matter\0{rule.name}\0lines\0rate" in self._matters else rule.rate_count
        fields = {
            name: field_text(context[name])[:MAX_FIELD_CHARS]
            for name in rule.fields
            if name in context and name != "exception"
        }
        seen = Seen(time_us, rank, source, problem.message, problem.exception or "", str(line["id"]), fields)
        self.begin(kind, key, app, seen, now, count, changed, lasts=False)

    def begin(
        self,
        kind: str,
        key: str,
        app: str,
        seen: Seen,
        now: float,
        count: int,
        changed: set[str],
        *,
        lasts: bool,
        once: bool = False,
    ) -> None:
        """Count something that happened; `lasts`: it is a state; `once`: while it lasts it does not count again.

        A state lasts until it has been over for `RECOVER_S`.
        """
        name = f"matter\0{self.rule.name}\0{kind}\0{key}"
        matter = self._matters.get(name)
        if matter is None and self._sizes[class_of(kind)] >= MAX_MATTERS:
            key, app, lasts = BEYOND, "", False
            name = f"matter\0{self.rule.name}\0{kind}\0{key}"
            matter = self._matters.get(name)
        if matter is None:
            matter = Matter(self.rule.name, kind, key, app, since_us=seen.time_us, last_us=seen.time_us)
            self._matters[name] = matter
            self._sizes[class_of(kind)] += 1
        changed.add(name)
        if not (once and matter.active):
            matter.note_seen(seen, count, now)
        if lasts:
            matter.begin()

    def over(self, kinds: Iterable[str], key: str, now: float, changed: set[str]) -> None:
        """Note that states of this key seem to be over."""
        for kind in kinds:
            name = f"matter\0{self.rule.name}\0{kind}\0{key}"
            matter = self._matters.get(name)
            if matter is not None and matter.active:
                matter.seems_over(now)
                changed.add(name)

    def active(self, kinds: Iterable[str]) -> list[Matter]:
        """Return the states of these kinds that last."""
        return [matter for matter in self._matters.values() if matter.active and matter.kind in kinds]

    # --- silence of a bot -------------------------------------------------------------------------------------------

    def _limit_s(self, app: str) -> float:
        return next((seconds for glob, seconds in self.rule.quiet_after if name_matches((glob,), app)), inf)

    def _silence_is_normal(self, app: str, local: LocalTime) -> bool:
        hours = next((hours for glob, hours in self.rule.quiet_normal if name_matches((glob,), app)), None)
        return hours is not None and hours.contains(*local)

    def silent_at(self, app: str, since: float, now: float) -> float:
        """Return when a bot that has been silent since then is to be looked at again."""
        if not self.wants("quiet", app) and not self.wants("gone", app):
            return inf
        name = f"matter\0{self.rule.name}\0quiet\0{app}"
        if name in self._matters and self._matters[name].active:
            return inf
        at = max(since, self._normal_until.get(app, 0.0)) + self._limit_s(app)
        has_hours = any(name_matches((glob,), app) for glob, _ in self.rule.quiet_normal)
        return now + LOOK_S if at <= now or has_hours else at

    def judge_silence(
        self,
        silent: Mapping[str, tuple[str, float]],
        speaks: Callable[[str], bool],
        now: float,
        local: LocalTime,
        changed: set[str],
    ) -> None:
        """Begin what has been silent for too long, and end what speaks again."""
        for app, (state, since) in silent.items():
            kind = "quiet" if state == "quiet" else "gone"
            if not self.wants(kind, app) or any(m.app == app for m in self.active(("crashed", "gone", "quiet"))):
                continue
            if self._silence_is_normal(app, local):
                self._normal_until[app] = now
                continue
            if now - max(since, self._normal_until.get(app, 0.0)) >= self._limit_s(app):
                words = {
                    "quiet": f"{app} is connected and has said nothing for a while",
                    "lost": f"{app} lost its connection and has not come back",
                    "absent": f"{app} should be running and is not connected",
                }
                seen = Seen(int(since * 1e6), WARNING, RELAY_SOURCE, words[state], "", "")
                self.begin(kind, app, app, seen, now, 1, changed, lasts=True)
        for matter in self.active(("quiet",)):
            if matter.app not in silent:
                if speaks(matter.app):
                    matter.seems_over(now)
                else:  # one that has ended speaks no more: its end is another matter, or was in order
                    matter.note_ignored()
                    matter.end()
                changed.add(f"matter\0{matter.name}")

    # --- what goes out ------------------------------------------------------------------------------------------

    def due(self, now: float, local: LocalTime, is_silenced: Callable[[str], bool], changed: set[str]) -> list[Alert]:
        """Return the alerts of this rule that are to be sent now."""
        waiting: list[Matter] = []
        ignored: dict[str, bool] = {}
        over: list[str] = []
        quiet = self.rule.quiet_hours.contains(*local)
        alerts: list[Alert] = []
        for name, matter in self._matters.items():
            if matter.app not in ignored:
                ignored[matter.app] = is_silenced(matter.app)
            is_over = matter.active and matter.back_at > 0 and now - matter.back_at >= RECOVER_S
            if matter.is_new:
                if not ignored[matter.app]:
                    waiting.append(matter)
                    continue
                if matter.active and not is_over:
                    continue
                # What was over before its silence was is told to nobody.
                self._silenced += matter.count - matter.told
                matter.note_ignored()
                changed.add(name)
            if is_over:
                if matter.is_known and self.rule.back:
                    # Whoever was told that it began is told that it is over, be it behind a silence.
                    alert = None if ignored[matter.app] else self.release.tell_back(matter, now, quiet=quiet)
                    if alert is None:
                        continue
                    alerts.append(alert)
                matter.end()
                changed.add(name)
            if self.release.ready_at(matter, now) <= now and self._is_stale(matter, now):
                over.append(name)
        for name in over:
            self._sizes[class_of(self._matters.pop(name).kind)] -= 1
            changed.add(name)
        told = self.release.decide(waiting, now, quiet=quiet)
        changed |= {f"matter\0{matter.name}" for matter in waiting if matter.told_at == now or matter.kept_back}
        if told or alerts or waiting:
            changed.add(f"release\0{self.rule.name}")
        return [*told, *alerts]

    def _is_stale(self, matter: Matter, now: float) -> bool:
        """Tell whether it has not happened for so long that it would be something new."""
        keep_s = FORGOTTEN_S if matter.active else self._cooldown_s(matter)
        return now - matter.seen_at >= keep_s or matter.seen_at > now + keep_s

    def _cooldown_s(self, matter: Matter) -> float:
        return self.rule.state_cooldown_s if matter.is_state else self.rule.line_cooldown_s

    def next_due(self, now: float, is_silenced: Callable[[str], bool]) -> float:
        """Return when `due` may have something."""
        waiting = [matter for matter in self._matters.values() if matter.is_new and not is_silenced(matter.app)]
        earliest = self.release.next_look(waiting, now)
        for matter in self._matters.values():
            if matter.is_new and not (matter.active and is_silenced(matter.app)):
                continue
            if matter.active and matter.back_at:
                at = matter.back_at + RECOVER_S
                earliest = min(earliest, at if at > now else now + LOOK_S)
            elif not matter.active:
                earliest = min(earliest, max(matter.seen_at, matter.told_at) + self._cooldown_s(matter))
        return earliest

    def shown(self, now: float) -> list[Matter]:
        """Return what somebody who looks should see."""
        return [matter for matter in self._matters.values() if matter.active or not self._is_stale(matter, now)]

    def take_silenced(self) -> int:
        """Return how often something was not told because of a silence since the last call."""
        count, self._silenced = self._silenced, 0
        return count

    def row(self, name: str) -> dict[str, Any] | None:
        """Return a row as it is to be kept; None: there is none any more."""
        if name.startswith("release\0"):
            return self.release.as_json()
        matter = self._matters.get(name)
        return None if matter is None else matter.as_json()


def _since(timestamp: object, time_us: int) -> float:
    try:
        return min(time_us / 1e6, datetime.fromisoformat(str(timestamp)).timestamp())
    except ValueError:
        return time_us / 1e6
