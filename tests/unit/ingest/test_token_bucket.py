"""A burst at once, then so many in a second, and a debt of one burst at most."""

from __future__ import annotations

from logrelay.ingest.token_bucket import TokenBucket


def test_a_burst_and_then_the_rate():
    bucket = TokenBucket(10, 2.0, 100.0)
    bucket.take(10)
    assert bucket.wait_s(100.0) == 0.5
    assert bucket.wait_s(100.25) == 0.25
    assert bucket.wait_s(100.5) == 0.0
    assert bucket.used_at == 100.5
    assert bucket.wait_s(10_000.0, 11) == 0.5  # never more than the burst


def test_what_is_owed_is_paid_back_in_time():
    bucket = TokenBucket(10, 2.0, 0.0)
    bucket.take(1_000)
    assert bucket.wait_s(0.0) == 5.5
    assert bucket.wait_s(5.5) == 0.0


def test_one_is_taken_unless_it_is_said_otherwise():
    """Two calls empty a bucket for two."""
    bucket = TokenBucket(2, 1.0, 0.0)
    bucket.take()
    assert bucket.wait_s(0.0) == 0.0
    bucket.take()
    assert bucket.wait_s(0.0) > 0
