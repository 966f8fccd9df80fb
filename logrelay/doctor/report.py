"""How settings and findings are shown, as text and as JSON.

Owns: the form of both, and that no secret is in either. It must not look at the machine or judge. Pure. Read
`cli/check` next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from logrelay.config.loading import Effective
from logrelay.config.settings import SETTINGS, Setting
from logrelay.doctor.facts import Facts
from logrelay.doctor.finding import Finding, exit_code

NOT_SET = "not set"

UNIT_SHOWN = ("FragmentPath", "DropInPaths", "EnvironmentFiles", "User", "UnitFileState", "ActiveState", "SubState")


def value_of(setting: Setting, effective: Effective) -> object:
    """Return the value of a setting as JSON has it, without what is secret in it."""
    value = getattr(effective.config, setting.name)
    if setting.public is not None:
        return setting.public(value)
    # What has no option, because options are visible to everybody, is not shown either.
    return value if setting.by_flag or value is None else "(set)"


def text_of(setting: Setting, effective: Effective) -> str:
    """Write the value of a setting for a person."""
    value = value_of(setting, effective)
    if value is None or value == ():
        return NOT_SET if setting.default_text in ("none", "") else setting.default_text
    return str(value) if value == "(set)" else setting.value_type.show(value)


def running(facts: Facts, url: str) -> str:
    """Say whether a relay runs with these settings; if not, how it is started."""
    relay, unit = facts.relay, facts.unit
    where = ("wss://" if relay is not None and relay.tls else "ws://") + url.partition("://")[2]
    if relay is None:
        if unit is not None and unit.runs:
            return f"{unit.name} runs ({unit.shown.get('ActiveState')}), and nobody answers as a relay at {url}"
        how = "logrelay serve, with these options and variables"
        if unit is not None:
            how = f"{unit.systemctl} start {unit.name}"
        return f"no relay runs with these settings: nobody answers as one at {url}; it is started by: {how}"
    facts_shown = [f"version {relay.version}" if relay.version else "its version is told with a token alone"]
    facts_shown += _processes(facts)
    return f"a relay runs at {where}: {', '.join(facts_shown)}"


def _processes(facts: Facts) -> Iterator[str]:
    """Give who the relay is, as far as it can be seen."""
    main = "0" if facts.unit is None else facts.unit.shown.get("MainPID", "0")
    if main != "0":
        yield f"process {main}"
    elif facts.port.holders:
        yield from facts.port.holders
    elif facts.journal is not None and facts.journal.held_by:
        yield f"process {facts.journal.held_by}"


def as_json(facts: Facts, findings: Sequence[Finding], urls: tuple[str, str]) -> dict[str, object]:
    """Return everything for --json."""
    effective = facts.effective
    settings = {
        setting.name: {
            "value": value_of(setting, effective),
            "from": effective.origins[setting.name],
            "shown": text_of(setting, effective),
        }
        for setting in SETTINGS
    }
    unit = facts.unit
    return {
        "settings": settings,
        "unknown_variables": effective.unknown_variables,
        "trader_places": [{"path": path, "socket": there} for path, there in facts.trader_places],
        "urls": {"websocket": urls[0], "page": urls[1]},
        "user": facts.user.name,
        "unit": None
        if unit is None
        else {"name": unit.name, "listens": list(unit.listens)} | {key: unit.shown.get(key, "") for key in UNIT_SHOWN},
        "relay": None if facts.relay is None else asdict(facts.relay),
        "running": running(facts, urls[0]),
        "bots": None
        if facts.journal is None or facts.journal.bots is None
        else [asdict(bot) for bot in facts.journal.bots],
        "findings": [{"code": one.code, "rank": one.rank, "text": one.text, "remedy": one.remedy} for one in findings],
        "exit": exit_code(findings),
    }


def as_text(facts: Facts, findings: Sequence[Finding], urls: tuple[str, str]) -> Iterator[str]:
    """Give the rows that a person reads; the findings follow on stderr."""
    effective = facts.effective
    rows = [(setting.name, text_of(setting, effective), effective.origins[setting.name]) for setting in SETTINGS]
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, value, origin in rows:
        yield f"{name:<{names}}  {value:<{min(values, 60)}}  {origin}"
    unit = facts.unit
    if unit is not None:
        yield ""
        yield f"{unit.name}: {unit.shown.get('ActiveState')}, {unit.shown.get('UnitFileState') or 'not enabled'}"
        for key in UNIT_SHOWN[:4]:
            for value in filter(None, unit.shown.get(key, "").splitlines()):
                yield f"  {key}  {value}"
        for address in unit.listens:
            yield f"  held by systemd  {address}"
    yield ""
    yield running(facts, urls[0])
    yield f"viewers connect to {urls[0]}, browsers open {urls[1]}"
    if unit is None:
        yield ""
        yield "a trader with this environment takes the first of these sockets that is there:"
        for path, there in facts.trader_places:
            yield f"  {path}  {'there' if there else 'not there'}"
    bots = None if facts.journal is None else facts.journal.bots
    if bots:
        yield ""
        yield f"bots that have been seen: {', '.join(f'{bot.app} ({bot.state})' for bot in bots)}"
    if not findings:
        yield ""
        yield "nothing is found to be wrong"


def finding_text(one: Finding) -> str:
    """Write a finding in one line, with what is to be done."""
    return f"{one.rank}: {one.text}; {one.remedy}"
