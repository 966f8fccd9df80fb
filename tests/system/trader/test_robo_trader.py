"""`python -m robo_trader` as a person starts and stops it."""

import json
import signal

import pytest

from tests.support.stillness import Stillness
from tests.support.waiting import DEADLINE_S

HEADER = "time,symbol,open,high,low,close,volume\n"


def trader(python, *arguments, **environment):
    return python("-m", "robo_trader", *arguments, **environment)


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(python, relay, number):
    """Stopped by a signal it says engine.stopped with the reason, everywhere, and exits with 0."""
    process = trader(python, "--speed", "20", LOGRELAY_SOCKET=relay.path, LOGRELAY_DISABLED="")
    relay.wait(lambda r: any(e["event"] == "trade.executed" for e in r.events))
    with Stillness() as still:
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    # A relay that stands still for longer than the trader's end may take is told of, and it is in this process.
    assert not err or (still.longest_s > 1 and err.startswith("robo_trader.log_relay["))
    last = lines(out)[-1]
    assert (last["event"], last["reason"]) == ("engine.stopped", number.name)
    relay.wait(lambda r: r.events[-1]["event"] == "engine.stopped")
    relay.wait(lambda r: r.byes == 1)
    shown = [(e["event"], e["timestamp"]) for e in lines(out) if e["logger"] != "audit"]
    assert [(e["event"], e["timestamp"]) for e in relay.events] == shown
    assert [frame[1] for frame in relay.logs] == list(range(1, len(relay.logs) + 1))
    assert relay.hellos[0]["app"] == "robo_trader"


def test_a_seed_means_the_same_trades_at_any_speed(python):
    """Two processes with one seed and different speeds trade the same; so does the order of their lines."""
    outs = []
    for speed in ("0", "400"):
        process = trader(python, "--seed", "5", "--speed", speed)
        trades, told = [], False
        for line in process.stdout:
            event = json.loads(line)
            trades += [event] if event["event"] == "trade.executed" else []
            if len(trades) > 10 and not told:
                process.send_signal(signal.SIGTERM)
                told = True
        outs.append(trades)
        assert process.wait(DEADLINE_S) == 0
    for trade in outs[0] + outs[1]:
        del trade["timestamp"]
    shorter = min(map(len, outs))
    assert shorter > 10
    assert outs[0][:shorter] == outs[1][:shorter]


def test_a_file_of_bars_is_traded_to_its_end(python, tmp_path):
    """It ends by itself with 0; the bad row is a warning with file and line; other symbols are left out."""
    file = tmp_path / "bars.csv"
    rows = [
        f"2026-01-05T14:{m:02}:00Z,A,{p},{p},{p},{p},5"
        for m, p in enumerate([50 - i for i in range(20)] + [40 + i for i in range(20)])
    ]
    rows.insert(3, "nonsense")
    rows.append("2026-01-05T15:30:00Z,B,1,1,1,1,1")
    file.write_text(HEADER + "\n".join(rows) + "\n")
    process = trader(python, "--bars", str(file), "--speed", "0", "--symbols", "a")
    out, _ = process.communicate(timeout=DEADLINE_S)
    events = lines(out)
    assert process.returncode == 0
    skipped = next(e for e in events if e["event"] == "bars.row_skipped")
    assert (skipped["file"], skipped["line"], skipped["level"]) == ("bars.csv", 5, "warning")
    assert any(e["event"] == "trade.executed" and e["symbol"] == "A" for e in events)
    assert not any(e.get("symbol") == "B" for e in events)
    assert (events[-1]["event"], events[-1]["reason"]) == ("engine.stopped", "end of data")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bars", "/nonexistent/x.csv"], "cannot read"),
        (["--bars", "/dev/null"], "header"),
        (["--speed", "fast"], "number"),
        (["--speed", "-1"], "number"),
        (["--duration", "nan"], "number"),
        (["--symbols", ","], "symbol"),
        (["--seed", "x"], "seed"),
        (["--unknown"], "--unknown"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_code_2(python, arguments, said):
    """No traceback, nothing traded; the last line of stderr names what is wrong."""
    process = trader(python, *arguments)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert not out
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


def test_audit_lines_stay_here(python, relay):
    """The session's report goes to the console and not to the relay."""
    process = trader(python, "--speed", "0", "--duration", "3", LOGRELAY_SOCKET=relay.path, LOGRELAY_DISABLED="")
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert any(e["logger"] == "audit" for e in lines(out))
    assert relay.logs
    assert not any(e.get("logger") == "audit" for e in relay.events)


def test_without_a_relay_it_trades_on(python, tmp_path):
    """No relay at the socket: trading is untouched, and the end is not held up for ever."""
    process = trader(
        python,
        "--speed",
        "0",
        "--duration",
        "1",
        LOGRELAY_SOCKET=str(tmp_path / "none"),
        LOGRELAY_DISABLED="",
    )
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert lines(out)[-1]["event"] == "engine.stopped"
