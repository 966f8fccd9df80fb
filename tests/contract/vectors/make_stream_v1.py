"""Writes stream-v1.json beside it: messages of the stream between edges and hub relays, assembled without the codec.

Each has `headers` and the `body` in hex. `lines` ([seq, rank, found_us, app, run, host, source, body]) and `holes`
([first, last, cause]) are what a hub relay reads in it; `error`, in their place, a part of what it says is wrong.

Run it from anywhere; it prints nothing if the file is up to date.
"""

import json
from pathlib import Path

import msgpack

FILE = Path(__file__).with_name("stream-v1.json")
US = 1_769_162_400_123_456
RUN = "75d1a1e3ff6d2bd3e2a4a0a1e3a2a1a0"


def body(id_, text, **more):
    shape = {"type": "log", "id": id_, "level": "INFO", "source": "robo.runner", "message": text, "context": {}, **more}
    return json.dumps(shape, separators=(",", ":")).encode()


def headers(first, last, lines, after="", levels="", epoch="k3f9ab", **more):
    made = {
        "Logrelay-Version": "1", "Logrelay-Edge": "box-1", "Logrelay-Journal": "0123456789abcdef",
        "Logrelay-Epoch": epoch, "Logrelay-First": str(first), "Logrelay-Last": str(last),
        "Logrelay-Lines": str(lines), "Nats-Msg-Id": f"box-1.{epoch}.{first}.{last}",
    }  # fmt: skip
    made |= {"Logrelay-After": after} if after else {}
    made |= {"Logrelay-Levels": levels} if levels else {}
    return made | {name.replace("_", "-"): value for name, value in more.items()}


def packed(rows, holes=()):
    origins = []
    for row in rows:
        if list(row[3:7]) not in origins:
            origins.append(list(row[3:7]))
    columns = [
        origins, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows],
        [origins.index(list(row[3:7])) for row in rows], [row[7] for row in rows], [list(hole) for hole in holes],
    ]  # fmt: skip
    return msgpack.packb(columns)


def good(name, given, rows, holes=()):
    shown = [[*row[:7], row[7].decode()] for row in rows]
    return {"name": name, "headers": given, "body": packed(rows, holes).hex(), "lines": shown, "holes": list(holes)}


def bad(name, given, data, error):
    return {"name": name, "headers": given, "body": data.hex(), "error": error}


ONE = (1, 20, US, "robo", RUN, "box", "robo.runner", body("k3f9ab-1", "first line"))
NOTICE = (
    2, 30, US + 9, "", "", "", "logrelay",
    body("k3f9ab-2", "robo crashed", source="logrelay", context={"notice": "trader", "state": "crashed"}),
)  # fmt: skip
FIVE = (5, 50, US + 20, "robo", RUN, "box", "robo.risk", body("k3f9ab-5", "margin call \u2603"))


def vectors():
    """Return all of them."""
    return [
        good("one line, the first of an edge", headers(1, 1, 1, levels="info=1"), [ONE]),
        good("a bot's line and a notice", headers(1, 2, 2, "k3f9ab-0", "info=1 warning=1"), [ONE, NOTICE]),
        good(
            "holes before and between",
            headers(1, 5, 1, "aaaaaa-0", "critical=1"),
            [FIVE],
            [[1, 3, "retention"], [4, 4, "corrupt"]],
        ),
        good("nothing but a hole", headers(10, 5009, 0, "k3f9ab-9"), [], [[10, 5009, "retention"]]),
        bad("no headers", {}, packed([ONE]), "no headers"),
        bad("a later version", headers(1, 1, 1, Logrelay_Version="2"), packed([ONE]), "version is '2'"),
        bad("a name that is no token", headers(1, 1, 1, Logrelay_Edge="box.1"), packed([ONE]), "Logrelay-Edge"),
        bad("an epoch that is none", headers(1, 1, 1, epoch="K-3"), packed([ONE]), "Logrelay-Epoch"),
        bad("a last before the first", headers(2, 1, 1), packed([ONE]), "lines 2 to 1"),
        bad("an after that is no id", headers(1, 1, 1, "what"), packed([ONE]), "Logrelay-After"),
        bad("a body that is no msgpack", headers(1, 1, 1), b"\xc1", "no msgpack"),
        bad("a body of another shape", headers(1, 1, 1), msgpack.packb([1, 2]), "seven arrays"),
        bad("fewer lines than it says", headers(1, 1, 2), packed([ONE]), "has 2 lines, and has 1"),
        bad("a seq that is missing", headers(1, 3, 2), packed([ONE, (3, *ONE[1:])]), "neither line nor hole for 2"),
        bad("a seq that is twice", headers(1, 1, 2), packed([ONE, ONE]), "neither line nor hole"),
        bad("an end that is missing", headers(1, 2, 1), packed([ONE]), "ends with 1"),
        bad("a level that there is not", headers(1, 1, 1), packed([(1, 25, *ONE[2:])]), "a level or an origin"),
        bad("a cause that there is not", headers(1, 1, 0), packed([], [[1, 1, "moon"]]), "a hole is not"),
        bad("a body with a line end", headers(1, 1, 1), packed([(*ONE[:7], b'{"a":\n1}')]), "no JSON object"),
    ]


def written(made):
    """Return the text of the file."""
    return "[\n" + ",\n".join(json.dumps(vector) for vector in made) + "\n]\n"


if __name__ == "__main__":
    text = written(vectors())
    if not FILE.exists() or FILE.read_text() != text:
        FILE.write_text(text)
        print(f"{FILE.name} written")
