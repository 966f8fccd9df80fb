"""An answer before it is bytes: what it holds when little is said, and that more headers come behind."""

from __future__ import annotations

from logrelay.http.response import HttpResponse


def test_a_status_alone_is_an_answer():
    """Without more it has no headers and an empty body."""
    answer = HttpResponse(204)

    assert (answer.status, answer.headers, answer.body) == (204, (), b"")
    assert answer.with_headers() == answer


def test_more_headers_come_behind_those_there_are():
    """The order is kept, nothing else changes, and the first answer stays as it was."""
    answer = HttpResponse(200, (("A", "1"),), b"x")

    assert answer.with_headers(("B", "2"), ("A", "3")) == HttpResponse(200, (("A", "1"), ("B", "2"), ("A", "3")), b"x")
    assert answer.headers == (("A", "1"),)
