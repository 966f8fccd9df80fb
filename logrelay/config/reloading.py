"""What of the settings can change while the relay runs.

Owns: the list of those settings, and what differs between the settings in use and those that were read again. It must
not know how a part takes a new value: `app` hands it on. Pure. Read `app` next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from logrelay.config.loading import Effective
from logrelay.config.settings import SETTINGS, Config

ALERT_SETTINGS = frozenset({"alert", "public_url", "heartbeat", "heartbeat_every", "expect"})
"""What the process of the alerts is told; another one takes up its file."""

RELOADABLE = ALERT_SETTINGS | frozenset(
    {"keep_bytes", "keep_days", "keep_free", "log_level", "max_traders", "max_viewers", "quiet_after", "token"}
)
"""Each is looked at anew whenever it matters. What is opened, bound or made once at the start is not among them."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What reading the settings again has brought."""

    config: Config
    """The settings to go on with."""
    applied: tuple[str, ...]
    """Names of those that are new in it."""
    refused: tuple[str, ...]
    """Names of those that only a restart changes."""


def compare(config: Config, origins: Mapping[str, str], read: Effective) -> Changes:
    """Compare the settings in use, and where each came from, with those that were read again.

    A default place that was worked out anew is no change: what is there now was opened by the old one.
    """
    differing = [
        setting.name
        for setting in SETTINGS
        if getattr(read.config, setting.name) != getattr(config, setting.name)
        and (
            setting.name in RELOADABLE
            or {origins.get(setting.name, "default"), read.origins[setting.name]} != {"default"}
        )
    ]
    applied = tuple(name for name in differing if name in RELOADABLE)
    values: dict[str, Any] = {name: getattr(read.config, name) for name in applied}
    return Changes(replace(config, **values), applied, tuple(name for name in differing if name not in RELOADABLE))


def words(changes: Changes, file: str | None) -> str:
    """Say what a reload has done with the settings, for the operator; values stay out of it, one is a secret."""
    if file is None:
        return (
            "settings are as they were: there is no configuration file, and the variables of a running process cannot "
            "change; a restart reads them"
        )
    parts = [f"{file} has been read again"]
    parts.append(f"changed: {', '.join(changes.applied)}" if changes.applied else "nothing in it has changed")
    if changes.refused:
        if not changes.applied:
            parts.pop()
        parts.append(f"only a restart changes {', '.join(changes.refused)}")
    return "; ".join(parts)
