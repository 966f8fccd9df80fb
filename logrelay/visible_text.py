"""Text of others as a person may look at it in a terminal: what would be obeyed is shown instead.

Owns: which characters are shown as escapes. It must not know where the text comes from or goes to. Pure. Read
`ingest/sequencer` next: the text of every notice goes through here.

Names and reasons come from programs that may mean harm. On a terminal an escape sequence could clear the screen or
retitle the window, a line break could make one line look like two, and a character that turns the direction of writing
could make a text read as another. JSON carries all of them as they are: viewers get data.
"""

from __future__ import annotations

import re

_OBEYED = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # halves of a pair, which cannot be written
    "]"
)


def visible(text: str) -> str:
    r"""Return the text with every character that a terminal obeys as an escape, such as `\x1b`."""
    return text if text.isprintable() else _OBEYED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
