"""The command that installs a package which only some relays need.

Owns: how that command is worded, for every extra, in this environment. It must not know what an extra is for. Read
`machines/nats_link` next for one that needs it.

The distribution is on no package index, so a command with its name alone would find nothing, or something else: it is
installed from a checkout, and pip writes down where that was.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "logrelay-daemon"


def install_command(extra: str) -> str:
    """Return the command that adds an extra to the environment of this process."""
    place, option = _installed_from()
    if place is None:
        return f"in the checkout {sys.executable} -m pip install '.[{extra}]'"
    return f"{sys.executable} -m pip install {option}'{place}[{extra}]'"


def _installed_from() -> tuple[str | None, str]:
    """Return the checkout that this was installed from, if it is still there, and the option it was installed with."""
    try:
        written = json.loads(metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        url = urlsplit(str(written.get("url", "")))
        editable = bool((written.get("dir_info") or {}).get("editable"))
    except (metadata.PackageNotFoundError, OSError, ValueError, AttributeError):
        return None, ""
    place = unquote(url.path)
    if url.scheme != "file" or not (Path(place) / "pyproject.toml").is_file():
        return None, ""
    return place, "-e " if editable else ""
