"""`python -m logrelay` is the command `logrelay`. Read `cli` next."""

import os
import signal
import sys

from logrelay.interrupts import INTERRUPTED, Interrupts

NEEDED = {"click", "msgpack", "orjson", "segno", "websockets"}
"""What the relay cannot run without. pip installs it together with the relay; a checkout alone has none of it."""


def run() -> None:
    """Run the command line. Exits with a line that says what to do when a package that it needs is missing."""
    interrupts = Interrupts()
    if sys.argv[1:2] == ["serve"]:
        # From the first moment on: a reload that is asked for while the relay starts must not end it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _run(interrupts)
    except KeyboardInterrupt:  # between two of the steps below
        os._exit(INTERRUPTED)


def _run(interrupts: Interrupts) -> None:
    try:
        from logrelay.cli import main  # noqa: PLC0415  (the missing package may be the first one it imports)

        interrupts.begin()
        main(prog_name="logrelay")
    except ModuleNotFoundError as missing:
        name = str(missing.name).partition(".")[0]
        if name not in NEEDED:
            raise
        sys.exit(
            f"logrelay: {name} is not installed for {sys.executable}; "
            "in a checkout run `make setup`, then .venv/bin/logrelay"
        )
    finally:
        interrupts.end()


if __name__ == "__main__":
    run()
