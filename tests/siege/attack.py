"""Runs one attack, in a process of its own: `python -m tests.siege.attack LISTENER NAME TARGET-AS-JSON`.

Owns: the process of the attacker. Ends by itself when the time is over, and at SIGTERM. Read `rows` next.
"""

from __future__ import annotations

import json
import sys

from tests.siege import trader_attacks, viewer_attacks
from tests.siege.target import Target, raise_fd_limit

ATTACKS_ON = {"viewers": viewer_attacks.ATTACKS, "traders": trader_attacks.ATTACKS}


def main(listener: str, name: str, target: str) -> None:
    """Attack until the time is over."""
    raise_fd_limit()
    ATTACKS_ON[listener][name](Target(**json.loads(target)))


if __name__ == "__main__":
    main(*sys.argv[1:])
