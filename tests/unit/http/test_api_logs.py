"""GET /logs: which lines, in which order, and what happens when something goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson
import pytest

import logrelay.http.api


def refusal(api, target: str) -> tuple[int, Mapping[str, str]]:
    answer = api.answer("GET", target, {})
    assert ("Content-Type", "application/json") in answer.headers
    return answer.status, orjson.loads(answer.body)


class TestWhich:
    def test_newest_by_default(self, facts, lines):
        """Without parameters: the newest 1,000 lines, ascending."""
        facts.add(1500)
        assert lines("/logs") == list(range(501, 1501))

    def test_body_is_the_viewer_message(self, facts, api):
        """Each line of the answer is byte for byte what viewers get, and the last one ends with a newline."""
        facts.add(2)
        answer = api.answer("GET", "/logs", {})

        async def read():
            return b"".join([c async for c in answer.body])

        assert asyncio.run(read()) == b"".join(line.body + b"\n" for line in facts.lines)

    def test_empty_journal(self, lines):
        """Nothing logged yet: an empty answer, not an error."""
        assert lines("/logs") == []
        assert lines("/logs?since=1h&level=ERROR") == []

    def test_after_gives_the_oldest_behind_it(self, facts, lines):
        """`after` is exclusive and reads forward; continuing with the last id meets every line once."""
        facts.add(25)
        got: list[object] = []
        after = "k3f9ab-0"
        while more := lines(f"/logs?after={after}&limit=10"):
            got += more
            after = f"k3f9ab-{more[-1]}"
        assert got == list(range(1, 26))

    def test_before_gives_the_newest_before_it(self, facts, lines):
        """`before` is exclusive and, alone, reads backward in ascending order, for scrolling back."""
        facts.add(25)
        assert lines("/logs?before=k3f9ab-21&limit=5") == [16, 17, 18, 19, 20]
        assert lines("/logs?after=k3f9ab-3&before=k3f9ab-7") == [4, 5, 6]
        assert lines("/logs?after=k3f9ab-7&before=k3f9ab-3") == []

    def test_times(self, facts, lines):
        """`since` is inclusive and reads forward from there, `until` is exclusive."""
        facts.add(100)
        facts.fill_in_times()
        assert lines("/logs?since=10s") == list(range(90, 101))
        assert lines("/logs?since=10s&limit=3") == [90, 91, 92]
        assert lines("/logs?until=10s&limit=3") == [87, 88, 89]
        assert lines("/logs?since=2026-01-23T09:59:50Z&until=2026-01-23T09:59:52.5Z") == [90, 91, 92]
        assert lines("/logs?since=1769162398.000001") == [99, 100]

    def test_filters(self, facts, lines):
        """level, source, text and where are those of the stream, and narrow together."""
        facts.add(10)
        facts.add(1, "warning", "robo_trader.risk", symbol="AAPL")
        facts.add(1, "error", "robo_trader.risk", symbol="MSFT")
        facts.add(1, "error", "robo_trader.market", symbol="MSFT")
        assert lines("/logs?level=WARNING") == [11, 12, 13]
        assert lines("/logs?source=*.risk&where=symbol%3DMSFT") == [12]
        assert lines("/logs?source=*.risk,*.market&level=error") == [12, 13]
        assert lines("/logs?text=LINE%207&token=abc") == [7]

    @pytest.mark.parametrize("kept_bytes", [0, 10**9])
    def test_newest_of_many_pages(self, facts, lines, monkeypatch, kept_bytes):
        """The newest matches come ascending and complete, whether the pages read were kept or are read again."""
        monkeypatch.setattr(logrelay.http.api, "KEPT_BYTES", kept_bytes)
        monkeypatch.setattr(logrelay.http.api, "PAGE_LINES", 7)
        facts.looked_at = 11
        for _ in range(40):
            facts.add(4)
            facts.add(1, "error")
        errors = [n for n in range(1, 201) if n % 5 == 0]
        assert lines("/logs?level=error") == errors
        assert lines("/logs?level=error&limit=9") == errors[-9:]
        assert lines("/logs?limit=50") == list(range(151, 201))
        assert lines("/logs?limit=1") == [200]

    def test_rare_matches(self, facts, lines):
        """A match far away is found although single pages look at few lines and find none."""
        facts.add(1, "error")
        facts.add(2000)
        facts.looked_at = 50
        assert lines("/logs?level=error") == [1]
        assert lines("/logs?after=k3f9ab-0&level=error") == [1]

    def test_ends_at_the_head_of_the_request(self, facts, api):
        """Lines that arrive while the answer is written are not in it, so it ends even under load."""
        facts.add(10)
        facts.before_read = [lambda: facts.add(5)]
        answer = api.answer("GET", "/logs?after=k3f9ab-0", {})
        assert ("Logrelay-Head", "k3f9ab-10") in answer.headers

        async def count():
            return len(b"".join([c async for c in answer.body]).splitlines())

        assert asyncio.run(count()) == 10

    def test_limit_is_asked_of_the_journal(self, facts, lines, monkeypatch):
        """No page asks for more than is wanted or more than a page."""
        monkeypatch.setattr(logrelay.http.api, "PAGE_LINES", 4)
        facts.add(20)
        assert len(lines("/logs?after=k3f9ab-0&limit=10")) == 10
        assert [q.limit for q in facts.queries] == [4, 4, 2]


class TestTrouble:
    def test_retention_overtakes(self, facts, lines, monkeypatch):
        """Lines that retention removes while the answer is written are counted in a line of the answer."""
        monkeypatch.setattr(logrelay.http.api, "PAGE_LINES", 10)
        facts.add(40)
        facts.before_read = [lambda: None, lambda: setattr(facts, "oldest", 31)]
        got = lines("/logs?after=k3f9ab-0")
        assert got[:10] == list(range(1, 11))
        assert got[10]["type"] == "error"
        assert got[10]["code"] == "expired"
        assert "20 lines" in got[10]["message"]
        assert got[11:] == list(range(31, 41))

    def test_old_lines_are_not_missing_from_a_search(self, facts, lines):
        """A search by time or for the newest lines does not complain about lines that expired long ago."""
        facts.add(40)
        facts.fill_in_times()
        facts.oldest = 31
        assert lines("/logs?since=1h") == list(range(31, 41))
        assert lines("/logs") == list(range(31, 41))

    def test_retention_between_the_two_readings(self, facts, lines, monkeypatch):
        """A backward search that reads twice counts what was removed in between, from the first line on."""
        monkeypatch.setattr(logrelay.http.api, "KEPT_BYTES", 0)
        facts.add(10)
        facts.before_read = [lambda: None, lambda: setattr(facts, "oldest", 4)]
        got = lines("/logs")
        assert "3 lines" in got[0]["message"]
        assert got[1:] == list(range(4, 11))

    def test_everything_removed(self, facts, lines, monkeypatch):
        """No more lines are counted as missing than were asked for."""
        facts.add(40)
        facts.before_read = [lambda: setattr(facts, "oldest", 31)]
        got = lines("/logs?after=k3f9ab-5&before=k3f9ab-11")
        assert len(got) == 1
        assert "5 lines" in got[0]["message"]

    def test_journal_fails(self, facts, lines):
        """A journal that cannot be read says so in the answer and ends it."""
        facts.add(3)
        facts.failing = True
        (error,) = lines("/logs")
        assert error["code"] == "journal"
        assert "disk I/O error" in error["message"]

    @pytest.mark.parametrize("parameter", ["after", "before"])
    def test_other_journal_is_gone(self, facts, api, parameter):
        """An id of another journal is 410 and says so: what is behind it cannot be known."""
        facts.add(40)
        status, body = refusal(api, f"/logs?{parameter}=zzzzzz-5")
        assert (status, body["type"], body["code"]) == (410, "error", "expired")

    def test_after_a_line_that_is_gone(self, facts, lines):
        """It was lost with the power: which ones were is the first line, then everything behind them."""
        facts.add(5)
        told, *rest = lines("/logs?after=k3f9ab-8&limit=3")
        assert (told["type"], told["code"]) == ("error", "unsynced")
        assert told["message"].startswith("3 lines, k3f9ab-6 to k3f9ab-8, are not in the journal: ")
        assert rest == []
        told, *rest = lines("/logs?before=k3f9ab-8&limit=3")
        assert (told["code"], rest) == ("unsynced", [3, 4, 5])

    @pytest.mark.parametrize("after", [0, 5])
    def test_after_what_is_no_longer_kept(self, facts, lines, after):
        """An `after` older than what is kept counts what is missing before the oldest line kept."""
        facts.add(40)
        facts.oldest = 31
        got = lines(f"/logs?after=k3f9ab-{after}")
        assert got[0]["code"] == "expired"
        assert f"{30 - after} lines are missing" in got[0]["message"]
        assert got[1:] == list(range(31, 41))

    def test_leaving_ends_the_search(self, facts, api):
        """Cancelling the task that waits for a chunk ends the search and frees its place; so does aclose()."""
        facts.add(100)
        blocked = asyncio.Event()

        def searches() -> str:
            text = api.answer("GET", "/metrics", {}).body.decode()
            return next(row for row in text.splitlines() if row.startswith("logrelay_searches "))

        async def scenario():
            reads = 0

            async def never(query):
                nonlocal reads
                reads += 1
                blocked.set()
                await asyncio.Event().wait()

            facts.read = never
            for _ in range(logrelay.http.api.MAX_READS + 1):
                blocked.clear()
                reader = asyncio.ensure_future(anext(api.answer("GET", "/logs", {}).body))
                await blocked.wait()
                assert searches() == "logrelay_searches 1"
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
                assert searches() == "logrelay_searches 0"
            assert reads == logrelay.http.api.MAX_READS + 1
            del facts.read
            search = api.answer("GET", "/logs", {}).body
            await anext(search)
            assert searches() == "logrelay_searches 1"
            await search.aclose()
            assert searches() == "logrelay_searches 0"

        asyncio.run(scenario())

    def test_reads_wait_their_turn(self, facts, api):
        """However many searches run, the journal is asked for at most MAX_READS pages at once."""
        facts.add(10)
        now = most = 0
        read = facts.read

        async def counted(query):
            nonlocal now, most
            now += 1
            most = max(most, now)
            for _ in range(3):
                await asyncio.sleep(0)
            now -= 1
            return await read(query)

        facts.read = counted

        async def scenario():
            async def read():
                return b"".join([c async for c in api.answer("GET", "/logs", {}).body])

            answers = await asyncio.gather(*(read() for _ in range(10)))
            assert all(answer.count(b"\n") == 10 for answer in answers)

        asyncio.run(scenario())
        assert most == logrelay.http.api.MAX_READS


class TestParameters:
    @pytest.mark.parametrize(
        ("query", "code", "said"),
        [
            ("levle=ERROR", "bad_parameter", "'levle' is not one of since, until, level"),
            ("level=ERROR&level=DEBUG", "bad_parameter", "level is given 2 times"),
            ("=x", "bad_parameter", "is not one of"),
            ("text=%ff", "bad_parameter", "not UTF-8"),
            ("&".join(["source=a"] * 65), "bad_parameter", "more than 64"),
            ("level=LOUD", "bad_level", "DEBUG, INFO"),
            ("where=symbol", "bad_where", "field=value"),
            ("text=" + "x" * 257, "bad_text", "at most 256"),
            ("limit=0", "bad_limit", "from 1 to 1000000"),
            ("limit=1000001", "bad_limit", "from 1 to 1000000"),
            ("limit=-1", "bad_limit", "'-1'"),
            ("limit=", "bad_limit", "''"),
            ("limit=\u0661", "bad_limit", "from 1"),
            ("limit=1e3", "bad_limit", "'1e3'"),
            ("limit=9999999999999999999999999999999999999999999", "bad_limit", "...'"),
            ("since=yesterday", "bad_time", "since 'yesterday' is not a time: RFC 3339"),
            ("until=15x", "bad_time", "until '15x'"),
            ("since=", "bad_time", "since ''"),
            ("since=1769162400000", "bad_time", "seconds since 1970"),
            ("since=999999999999", "bad_time", "seconds since 1970"),
            ("since=2026-02-30T10:00:00Z", "bad_time", "2026-02-30"),
            ("since=2026-01-23T10:00:00", "bad_time", "not a time"),
            ("since=1h&until=2h", "bad_time", "since '1h' is not before until '2h'"),
            ("since=1h&until=1h", "bad_time", "is not before"),
            ("after=k3f9ab", "bad_id", "not an id"),
        ],
    )
    def test_bad_parameters(self, api, query, code, said):
        """What is wrong is 400 with a code, what was given and what is allowed; nothing is read."""
        status, body = refusal(api, f"/logs?{query}")
        assert (status, body["type"], body["code"]) == (400, "error", code)
        assert said in body["message"]


class TestAround:
    def test_the_line_and_half_of_the_rest_on_each_side(self, facts, lines):
        """`limit` lines in all, in order; an even limit has one more before the line."""
        facts.add(300)
        assert lines("/logs?around=k3f9ab-20&limit=5") == [18, 19, 20, 21, 22]
        assert lines("/logs?around=k3f9ab-20&limit=4") == [18, 19, 20, 21]
        assert lines("/logs?around=k3f9ab-20&limit=1") == [20]
        assert lines("/logs?around=k3f9ab-150") == list(range(100, 200))

    def test_at_the_ends_there_are_fewer(self, facts, lines):
        """What is not there is not made up from the other side."""
        facts.add(10)
        assert lines("/logs?around=k3f9ab-2&limit=7") == [1, 2, 3, 4, 5]
        assert lines("/logs?around=k3f9ab-10&limit=5") == [8, 9, 10]

    def test_the_filter_is_for_the_others(self, facts, lines):
        """A line that was asked for by its id is there whatever else was asked for."""
        for _ in range(10):
            facts.add(1)
            facts.add(1, "error")
        assert lines("/logs?around=k3f9ab-11&limit=5&level=ERROR") == [8, 10, 11, 12, 14]

    def test_many_lines_come_in_several_pages(self, facts, lines):
        """Rare matches on either side are looked for in as many pages as it takes."""
        facts.add(1, "error")
        facts.add(2500)
        facts.add(1, "error")
        facts.add(2500)
        facts.add(1, "error")
        assert lines("/logs?around=k3f9ab-2000&limit=10&level=ERROR") == [1, 2000, 2502, 5003]

    @pytest.mark.parametrize(
        ("query", "status", "code"),
        [
            ("around=k3f9ab-3", 410, "expired"),
            ("around=other0-7", 410, "expired"),
            ("around=nonsense", 400, "bad_id"),
            ("around=k3f9ab-7&after=k3f9ab-7", 400, "bad_parameter"),
            ("around=k3f9ab-7&since=1h", 400, "bad_parameter"),
            ("around=k3f9ab-7&around=k3f9ab-8", 400, "bad_parameter"),
            ("around=k3f9ab-7&limit=0", 400, "bad_limit"),
            ("around=k3f9ab-7&nonsense=1", 400, "bad_parameter"),
        ],
    )
    def test_what_cannot_be_had_is_said(self, facts, api, query, status, code):
        """An id that is no longer kept is not answered with the lines next to it."""
        facts.add(10)
        facts.oldest = 5
        assert refusal(api, f"/logs?{query}")[0] == status
        assert refusal(api, f"/logs?{query}")[1]["code"] == code

    def test_a_lost_line_says_so_first(self, facts, lines):
        """Then come the lines around where it was."""
        facts.add(10)
        error, *rest = lines("/logs?around=k3f9ab-12&limit=4")
        assert error["code"] == "unsynced"
        assert rest == [9, 10]

    def test_a_line_that_retention_takes_meanwhile_is_missed_aloud(self, facts, lines):
        """It was kept when the answer began."""
        facts.add(10)
        facts.before_read = [lambda: setattr(facts, "oldest", 6)]
        assert lines("/logs?around=k3f9ab-5&limit=3") == [
            {"type": "error", "code": "expired", "message": "1 lines are missing here: no longer kept (retention)"},
            6,
        ]
