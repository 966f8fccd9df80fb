"""Exceptions as text, in whatever form a line brings them.

Owns: `exception_to_text`. It must not know secrets, levels or the relay. The chain formats with it. Read `levels` next.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from structlog.processors import format_exc_info

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def exception_to_text(logger: Any, method_name: str, event: MutableMapping[str, Any]) -> bool:
    """Replace `exc_info`, in whatever form, by the string `exception`; without an exception it just goes.

    The text has no values of local variables. Never raises; returns False if there was something that could
    not be formatted, which `exception` then says.
    """
    given = event["exc_info"]
    found = sys.exc_info() if given is True else given
    try:
        if found and not (isinstance(found, tuple) and found[:2] == (None, None)):
            format_exc_info(logger, method_name, event)
    except Exception as error:
        event["exception"] = f"[exc_info was {type(given).__name__}: {type(error).__name__}]"
        return False
    finally:
        event.pop("exc_info", None)
        del given, found  # they hold frames
    return True
