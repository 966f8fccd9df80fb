"""What the redaction costs per clean line, against the rules of an earlier commit, in one process and in turn.

    python tests/bench/redaction.py REVISION [--repeats N] [--hostile]

Owns: the lines that hold no secret, and the comparison. Both sets of rules see the same lines, one batch of each in
turn, and the least of many batches counts: another program can only make a batch slower. Texts differ from batch to
batch where they would in a bot, so that what a redactor remembers helps it no more than there.

`--hostile` measures instead how the time grows when a text made to be slow is doubled; about 2 is linear.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BATCH = 200
"""Lines of one batch: about a millisecond, short enough to fall between two slices of another program."""
HOSTILE_CHARS = 16_384
"""Characters of the shorter hostile text; the redactor cuts at four times as many."""

Line = dict[str, Any]


def _lines() -> Iterator[tuple[str, Callable[[int], Line]]]:
    base = {"timestamp": "2026-01-23T10:00:00.123456Z", "level": "info", "logger": "robo_trader.engine"}
    yield "numbers and words", lambda n: {
        **base, "event": "trade.executed", "symbol": "AAPL", "side": "buy", "quantity": n, "price": 187.32, "by": "mr"
    }  # fmt: skip
    yield "and a new order id", lambda n: {
        **base, "event": "order.placed", "order_id": f"ord-{n:07d}", "symbol": "AAPL", "side": "buy", "price": 187.32
    }  # fmt: skip
    yield "a sentence", lambda n: {**base, "event": f"filled {n} AAPL at the market after {n % 97} seconds"}
    yield "a sentence with signs", lambda n: {**base, "event": f"filled AAPL: {n} @ 187.32 fee=0.35 route=SMART"}
    yield "a request", lambda n: {
        **base, "event": f'Request: GET https://api.binance.com/api/v3/ticker?symbol=BTCUSDT&n={n} "HTTP/1.1 200 OK"'
    }  # fmt: skip
    yield (
        "a frame of JSON",
        lambda n: {
            **base,
            "event": "ws.recv",
            "frame": f'{{"e":"trade","E":1700000000123,"s":"BTCUSDT","t":{n},"p":"64123.50","q":"0.010","m":true}}',
        },
    )
    yield (
        "a nested answer",
        lambda n: {
            **base,
            "event": "balance",
            "data": {"USDT": {"free": 1.5 * n, "used": 0.0}, "BTC": {"free": 0.51, "used": 0.0}},
            "ids": [f"a{n}", f"b{n}"],
        },
    )
    yield (
        "bare words",
        lambda n: {**base, "event": "swap", "pair": "WETH/USDC", "account_type": "MARGIN", "key_count": n},
    )
    yield "words of secrets in text", lambda n: {
        **base, "event": f"session=london account equity={n} key=AAPL signal=buy pass rate 0.9"
    }  # fmt: skip
    yield "a sentence about a key", lambda n: {**base, "event": f"key rotation {n} done, token expired, refreshing"}
    yield "a sentence of new words", lambda n: {**base, "event": f"filled {_word(n)} at the market by {_word(n + 9)}"}
    yield "the same about a key", lambda n: {**base, "event": f"key {_word(n)} rotated, token expired, {_word(n + 9)}"}
    yield (
        "a new hexadecimal id",
        lambda n: {**base, "event": f"order {n * 7919 % 2**32:08x}-41d4-a716 accepted"},
    )
    trace = "".join(
        f'  File "/app/bot/module{i}.py", line {i * 7}, in step{i}\n    self.step{i}(order)\n' for i in range(12)
    )
    yield "a traceback", lambda n: {**base, "event": "failed", "exception": f"{trace}ValueError: order {n} refused"}


def _word(number: int) -> str:
    """Return a word of five letters that stands for the number: no text of them was ever seen before."""
    return "".join(chr(97 + number // 26**place % 26) for place in range(5))


def _redactor_of(revision: str) -> Any:
    """Return a redactor of an earlier commit; its modules are forgotten afterwards."""
    archive = subprocess.run(
        ["git", "archive", revision, "robo_trader"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(place, filter="data")
        sys.path.insert(0, place)
        try:
            return _redactor()
        finally:
            sys.path.remove(place)
            for name in [name for name in sys.modules if name.partition(".")[0] == "robo_trader"]:
                del sys.modules[name]


def _redactor() -> Any:
    try:
        from robo_trader.logging.redaction import Redactor  # noqa: PLC0415 - of the revision that is on the path now
    except ModuleNotFoundError:  # before the modules were moved into folders
        from robo_trader.redact import Redactor  # type: ignore[no-redef,import-not-found]  # noqa: PLC0415
    try:
        return Redactor(environ={})
    except TypeError:
        return Redactor()


def _least(redactors: list[Any], make: Callable[[int], Line], repeats: int) -> list[float]:
    """Return the least microseconds per line of each redactor."""
    least = [float("inf")] * len(redactors)
    for repeat in range(repeats):
        for which, redactor in enumerate(redactors):
            lines = [make(repeat * BATCH + n) for n in range(BATCH)]
            begin = time.perf_counter()
            for line in lines:
                redactor(None, "info", line)
            least[which] = min(least[which], (time.perf_counter() - begin) / BATCH * 1e6)
    return least


def compare(revision: str, repeats: int) -> None:
    """Print microseconds per clean line, before and now, and their ratio."""
    before = _redactor_of(revision)
    sys.path.insert(0, str(ROOT))
    redactors = [before, _redactor()]
    print(f"{'line':24} {'before':>8} {'now':>8} {'ratio':>6}   us, least of {repeats} batches")
    total = [0.0, 0.0]
    for name, make in _lines():
        old, new = _least(redactors, make, repeats)
        total = [total[0] + old, total[1] + new]
        print(f"{name:24} {old:8.2f} {new:8.2f} {new / old:6.2f}")
    print(f"{'all':24} {total[0]:8.2f} {total[1]:8.2f} {total[1] / total[0]:6.2f}")


def hostile() -> None:
    """Print how the time grows for the texts of the tests that are made to be slow, worst first."""
    sys.path.insert(0, str(ROOT))
    from tests.unit.log_relay.hostile_texts import hostile_texts  # noqa: PLC0415 - the path is known only now

    scrub = _redactor().text
    found = []
    for name, make in hostile_texts():
        times = []
        for size in (HOSTILE_CHARS, HOSTILE_CHARS * 2):
            text = make(size)
            best = float("inf")
            for _ in range(3):
                begin = time.process_time()
                scrub(text)
                best = min(best, time.process_time() - begin)
            times.append(best)
        found.append((times[1] / times[0], times[1] * 1e3, name))
    for ratio, ms, name in sorted(found, key=lambda row: -row[1])[:12]:
        print(f"{ms:8.1f} ms for {HOSTILE_CHARS * 2} characters, ratio of doubling {ratio:4.1f}  {name!r}")
    print(f"worst ratio of those over 5 ms: {max((r for r, ms, _ in found if ms > 5), default=0):.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?", help="the commit whose rules are compared with")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--hostile", action="store_true")
    chosen = parser.parse_args()
    if chosen.hostile:
        hostile()
    if chosen.revision is not None:
        compare(chosen.revision, chosen.repeats)
