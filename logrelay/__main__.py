"""`python -m logrelay` is the command `logrelay`. Read `cli` next."""

import signal
import sys

NEEDED = {"click", "msgpack", "orjson", "segno", "websockets"}
"""What the relay cannot run without. pip installs it together with the relay; a checkout alone has none of it."""


def run() -> None:
    """Run the command line. Exits with a line that says what to do when a package that it needs is missing."""
    if sys.argv[1:2] == ["serve"]:
        # From the first moment on: a reload that is asked for while the relay starts must not end it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        from logrelay.cli import main  # noqa: PLC0415  (the missing package may be the first one it imports)

        main(prog_name="logrelay")
    except ModuleNotFoundError as missing:
        name = str(missing.name).partition(".")[0]
        if name not in NEEDED:
            raise
        sys.exit(
            f"logrelay: {name} is not installed for {sys.executable}; "
            "in a checkout run `make setup`, then .venv/bin/logrelay"
        )


if __name__ == "__main__":
    run()
