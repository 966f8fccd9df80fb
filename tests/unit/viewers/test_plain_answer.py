"""How plain answers are written, and how a body of unknown length ends."""

from __future__ import annotations

import asyncio

from logrelay import budgets
from logrelay.http.response import HttpResponse
from logrelay.viewers import plain_answer
from tests.unit.viewers.test_connection import REQUEST, Bench, on_a_loop


@on_a_loop
async def test_an_answer_gets_what_every_answer_has():
    """Date, length, the end of the connection, and a type where none is given."""
    bench = Bench(HttpResponse(404, (), b"nothing\n"))
    bench.connection.data_received(REQUEST)
    first, headers, body = bench.answer()
    assert bench.asked == [("/logs", "192.168.1.7")]
    assert first.startswith("HTTP/1.1 404 ")
    assert (headers["connection"], headers["content-length"], body) == ("close", "8", b"nothing\n")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert "date" in headers
    assert bench.transport.ended == ["eof"]


@on_a_loop
async def test_the_length_that_is_given_is_the_one_that_is_sent():
    """An answer to HEAD names the length of what GET would give."""
    bench = Bench(HttpResponse(200, (("Content-Length", "42"), ("Content-Type", "image/svg+xml"))))
    bench.connection.data_received(REQUEST)
    _, headers, body = bench.answer()
    assert (headers["content-length"], headers["content-type"], body) == ("42", "image/svg+xml", b"")


async def chunks_of(*parts, ended=None):
    try:
        for part in parts:
            if isinstance(part, Exception):
                raise part
            yield part
    finally:
        if ended is not None:
            ended.append(True)


@on_a_loop
async def test_a_body_of_unknown_length_ends_with_the_connection():
    """No length is named; the end is a close in order."""
    bench = Bench(HttpResponse(200, (("Content-Type", "application/x-ndjson"),), chunks_of(b"a\n", b"b\n")))
    bench.connection.data_received(REQUEST)
    await bench.transport.done.wait()
    _, headers, body = bench.answer()
    assert "content-length" not in headers
    assert (headers["connection"], body, bench.transport.ended) == ("close", b"a\nb\n", ["close"])


@on_a_loop
async def test_half_a_body_is_not_taken_for_the_whole():
    """When the rest cannot be made, the connection is reset, and the error is told of: it is a bug."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    bench = Bench(HttpResponse(200, (), chunks_of(b"a\n", ValueError("no more"))))
    bench.connection.data_received(REQUEST)
    await bench.transport.done.wait()
    assert (bench.transport.ended, list(map(str, told)), bench.streams) == (["abort"], ["no more"], 1)


@on_a_loop
async def test_the_next_chunk_waits_for_room():
    """Nothing is made for a socket that is full."""
    made = []

    async def chunks():
        for n in range(2):
            made.append(n)
            yield b"%d" % n

    bench = Bench(HttpResponse(200, (), chunks()))
    write = bench.transport.write

    def full_after(data):
        write(data)
        if data == b"0":
            bench.connection.pause_writing()

    bench.transport.write = full_after
    bench.connection.data_received(REQUEST)
    while not made:
        bench.transport.wrote.clear()
        await bench.transport.wrote.wait()
    assert made == [0]
    bench.connection.resume_writing()
    await bench.transport.done.wait()
    assert (made, bench.answer()[2], bench.transport.ended) == ([0, 1], b"01", ["close"])


def test_a_reader_that_takes_nothing_is_cut_off(monkeypatch):
    """It would keep its connection for ever."""
    monkeypatch.setattr(plain_answer, "STREAM_TIMEOUT_S", 0.01)
    monkeypatch.setattr(budgets, "STALLED_ANSWER_S", 0.004)

    @on_a_loop
    async def scenario():
        ended = []
        bench = Bench(HttpResponse(200, (), chunks_of(b"a", b"b", ended=ended)))
        bench.connection.data_received(REQUEST)
        bench.connection.pause_writing()
        await bench.transport.done.wait()
        assert bench.transport.ended == ["abort"]
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        assert ended == [True]

    scenario()


def test_a_reader_that_takes_nothing_while_others_wait_is_cut_off_sooner(monkeypatch):
    """Long answers have few places."""
    monkeypatch.setattr(budgets, "STALLED_ANSWER_S", 0.004)

    @on_a_loop
    async def scenario():
        bench = Bench(HttpResponse(200, (), chunks_of(b"a", b"b")))
        bench.streams_are_full = True
        bench.connection.data_received(REQUEST)
        bench.connection.pause_writing()
        await bench.transport.done.wait()
        assert (bench.transport.ended, bench.limits) == (["abort"], ["stalled"])

    scenario()


@on_a_loop
async def test_a_reader_that_leaves_ends_the_body():
    """Whoever makes it is told, so that it can end its search."""
    ended = []
    bench = Bench(HttpResponse(200, (), chunks_of(b"a", b"b", ended=ended)))
    bench.connection.data_received(REQUEST)
    await bench.transport.wrote.wait()
    bench.connection.pause_writing()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    bench.connection.connection_lost(None)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (ended, bench.forgotten) == ([True], 1)


@on_a_loop
async def test_every_answer_has_the_safe_headers():
    """Unless whoever made it gave others."""
    bench = Bench(HttpResponse(200, (("cache-control", "no-cache"),), b"x"))
    bench.connection.data_received(REQUEST)
    _, headers, _ = bench.answer()
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers["cache-control"] == "no-cache"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    bench.connection.connection_lost(None)
