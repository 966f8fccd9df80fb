"""SQL and Filter.matches give the same answer, whatever stands in a line."""

from __future__ import annotations

import itertools
from dataclasses import replace

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from logrelay.fanout.filters import UNLIMITED, Filter, Limit, field_text
from logrelay.journal import text_index
from logrelay.journal.interface import Query
from logrelay.journal.memory import MemoryJournal
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit

odd = st.text(
    alphabet=st.one_of(st.sampled_from("ab.\"\\'[]{}$%*?,: \0\n\t\x1fAÄé€😀"), st.characters(codec="utf-8")),
    max_size=6,
)
plain = st.sampled_from(
    ["", "symbol", "a", "b", "a.b", "side", "AAPL", "Msg", "MSG", "é", "null", "true", "1", "1.0", '"']
)
text = st.one_of(plain, odd)
leaf = st.one_of(
    text,
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, 1.0, -0.0, 1e16, 1e-7, 100, 2**53]),
)
value = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)
context = st.dictionaries(text, value, max_size=4)
source = st.one_of(st.sampled_from(["robo.a", "robo.b", "x", "[x]", "r*"]), odd.filter(lambda s: "\0" not in s))

app = st.one_of(st.sampled_from(["bot", "bot2", "", "robo.a"]), odd.filter(lambda s: "\0" not in s))

notice = st.fixed_dictionaries(
    {},
    optional={
        "notice": st.sampled_from(["gap", "relay", "trader"]),
        "app": st.sampled_from(["bot", "bot2", "", None, "robo.a"]),
        "apps": st.sampled_from([["bot"], ["bot2", "x"], []]),
        "more_apps": st.just(True),
        "run": st.sampled_from([f"{1:032x}", "0" * 31 + "x", 7]),
        "edge": st.sampled_from(["berlin", "paris", 7]),
        "state": st.sampled_from(["access", "closed", "crashed", "lost", "trouble", 1]),
        "levels": st.sampled_from([{"INFO": 3}, {"WARNING": 1}, {"ERROR": 2}, {"ERROR": 0, "INFO": 1}, {}]),
    },
)
"""The context of a notice, as far as a limit asks for it."""

EDGES = ("", "berlin", "paris")
"""Where the lines come from, in turn."""


@st.composite
def scene(draw):
    """Some lines and notices, and a filter that has a chance to match them."""
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from([10, 20, 30, 40, 50]), source, st.sampled_from([0, 1, 1, 1, 2]), text, context, app
            ),
            min_size=1,
            max_size=8,
        )
    )
    rows = orjson.loads(orjson.dumps(rows))  # what the relay calls JSON-safe
    held = [(key, field_text(value)) for row in rows for key, value in row[4].items()] or [("a", "x")]
    pair = st.one_of(
        st.sampled_from(held),
        st.tuples(st.sampled_from([key for key, _ in held]), text),
        st.tuples(text, st.sampled_from([value for _, value in held])),
    )
    where = draw(st.lists(pair, max_size=2))
    texts = [
        *(row[3] for row in rows),
        *(value for _, value in held),
        *(f"{key}={value}" for key, value in held),
    ]
    whole = draw(st.sampled_from(texts))
    start = draw(st.integers(0, len(whole)))
    part = st.just(whole[start : start + draw(st.integers(1, 8))])
    wanted = Filter(
        draw(st.sampled_from([10, 10, 20, 30, 40, 50])),
        tuple(
            draw(
                st.lists(
                    st.one_of(st.sampled_from(["robo.*", "?", "[x]", "[[]x]", "*", "r[*]", "logrelay"]), source),
                    max_size=2,
                )
            )
        ),
        draw(st.one_of(st.just(""), st.sampled_from(texts).map(str.swapcase), st.sampled_from(texts), part, text)),
        tuple(where),
        tuple(draw(st.lists(st.one_of(st.sampled_from(["bot", "b*", "*"]), app), max_size=2))),
        runs=tuple(draw(st.lists(st.sampled_from([f"{1:032x}", "0*1", "*", "0*", '"', "x"]), max_size=2))),
        notices=draw(st.sampled_from(["relevant", "relevant", "no", "all", "counted"])),
        edges=tuple(draw(st.lists(st.sampled_from(["berlin", "b*n", "*", "p*", '"']), max_size=1))),
    )
    limit = Limit(
        draw(st.sampled_from([10, 10, 20, 30, 50])),
        tuple(draw(st.lists(st.sampled_from(["robo.*", "?", "[[]x]", "*"]), max_size=2))),
        tuple(draw(st.lists(st.one_of(st.sampled_from(["bot", "b*", "*"]), app), max_size=2))),
    )
    for row in rows:
        if not row[2]:
            row[4] = draw(notice)
    return rows, wanted.within(draw(st.sampled_from([UNLIMITED, limit])))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One journal of each kind for all examples; each example looks at its own stretch."""
    sqlite = SqliteJournal(
        str(tmp_path_factory.mktemp("filters") / "journal.db"),
        now_us=lambda: 0,
        random_epoch=lambda: "abc123",
    )
    memory = MemoryJournal(random_epoch=lambda: "abc123")
    sqlite.open()
    memory.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_index, "STEP_LINES", 2)  # so that lines are in the index, some of them
        patch.setattr(text_index, "MOST_LINES", 2)
        patch.setattr(text_index, "BLOCKS", 16)
        yield sqlite, memory, itertools.count(1)
    assert len(sqlite._text_index._ranges) > 10
    assert not sqlite._text_index.damaged
    sqlite.close()
    memory.close()


def _tail(journal, query):
    """Read all of a stretch backwards; returns the bodies, and before which seq notices were left out."""
    found, notices_from = [], 0
    while True:
        page = journal.page(query)
        found = page.bodies + found
        notices_from = notices_from or page.notices_from
        if page.complete:
            return found, notices_from
        query = replace(query, until=page.reached, notices=query.notices - page.beside)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scene=scene(), newest=st.booleans(), limit=st.sampled_from([1, 3, 100]))
def test_sql_and_python_agree(both, line, scene, newest, limit):
    """The journal returns exactly the lines that Filter.matches lets through, by whatever index and in any pages.

    A page has `limit` of them at most, without the notices that do not count; a tail has so many of those as well.
    """
    sqlite, memory, numbers = both
    rows, wanted = scene
    assume(all("\0" not in text for text in (wanted.text, *itertools.chain(*wanted.where))))  # parse_filter refuses it
    made = [
        line(next(numbers), level=level, source=source, run=run, message=message, context=context, app=app, edge=edge)
        for (level, source, run, message, context, app), edge in zip(rows, itertools.cycle(EDGES), strict=False)
    ]
    matching = [entry for entry in made if wanted.matches(entry)]
    beside = [e for e in matching if e.run == 0 and not wanted.notice_counts(e.level, e.message, e.context)]
    expected = [entry.body for entry in matching]
    for journal in (sqlite, memory):
        journal.append(Commit(made))
        while journal.derive(seconds=1.0):
            pass
        after, until = made[0].seq - 1, made[-1].seq
        found: list[bytes] = []
        while True:
            page = journal.page(Query(after, until, limit, wanted, newest))
            assert page.seqs == sorted(page.seqs)
            assert page.beside == sum(entry.seq in page.seqs for entry in beside)
            assert page.counted <= limit
            found = page.bodies + found if newest else found + page.bodies
            if page.complete:
                break
            if newest:
                until = page.reached
            else:
                after = page.reached
        assert found == expected
        left_out = {entry.seq for entry in beside[: max(0, len(beside) - limit)]}
        found, notices_from = _tail(journal, Query(made[0].seq - 1, made[-1].seq, 100, wanted, True, notices=limit))
        assert found == [entry.body for entry in matching if entry.seq not in left_out]
        assert notices_from == (max(left_out) + 1 if left_out else 0)


@pytest.mark.parametrize("nul", ["a\0b", "\0", "x\0"])
def test_what_comes_after_a_nul_is_found(both, line, nul):
    """SQLite's JSON functions end a text at a NUL; the answer must not."""
    sqlite, memory, numbers = both
    seq = next(numbers)
    for journal in (sqlite, memory):
        journal.append(Commit([line(seq, message=f"{nul} tail", context={"k": nul})]))

        def found(wanted, journal=journal):
            return journal.page(Query(seq - 1, seq, 1, wanted)).seqs == [seq]

        assert found(Filter(text="TAIL"))
        assert not found(Filter(text="tails"))
        assert not found(Filter(where=(("k", "a"),)))
        assert not found(Filter(where=(("k", "x"),)))


@pytest.mark.parametrize(
    ("key", "value", "asked", "matches"),
    [
        ("symbol", "AAPL", "AAPL", True),
        ("symbol", "AAPL", '"AAPL"', False),
        ("symbol", "AAPL", "aapl", False),
        ("n", 100, "100", True),
        ("n", "100", "100", True),
        ("n", 100, "100.0", False),
        ("n", 1e16, orjson.dumps(1e16).decode(), True),
        ("n", 1.5, "1.5", True),
        ("n", None, "null", True),
        ("n", None, "", False),
        ("n", True, "true", True),
        ("n", True, "1", False),
        ("n", [1, "a"], '[1,"a"]', True),
        ("n", {"a": 1}, '{"a":1}', True),
        ("a.b", 1, "1", True),
        ("[0]", 1, "1", True),
        ('a"b', 1, "1", True),
        ("a\\b", 1, "1", True),
        ("é", "ü", "ü", True),
        ("m", 'say "x"\n', 'say "x"\n', True),
    ],
)
def test_a_field_is_compared_as_text(both, line, key, value, asked, matches):
    """A string as it is, anything else as its JSON; dots, brackets, quotes in a key mean nothing special."""
    sqlite, memory, numbers = both
    made = line(next(numbers), context={key: value})
    wanted = Filter(where=((key, asked),))
    assert wanted.matches(made) is matches
    for journal in (sqlite, memory):
        journal.append(Commit([made]))
        assert bool(journal.page(Query(made.seq - 1, made.seq, 1, wanted)).seqs) is matches
        assert not journal.page(Query(made.seq - 1, made.seq, 1, Filter(where=(("absent", asked),)))).seqs
