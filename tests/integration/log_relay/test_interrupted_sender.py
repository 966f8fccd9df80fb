"""The sender with its thread and a relay: what an interruption of the thread must not change."""

from tests.support.waiting import DEADLINE_S


def test_an_interrupted_turn_does_not_make_the_acks_doubtful(ship, peer, wait_for):
    """Lines that callers sent themselves count as sent when the thread is hit by an exception: their acks are good."""
    processor = ship()
    processor(None, "info", {"event": "first"})
    assert processor.flush(DEADLINE_S)
    wait_for(lambda: processor._out.direct_send is not None)
    for i in range(10):
        processor(None, "info", {"event": "t", "i": i})
    assert processor.flush(DEADLINE_S)
    sender = processor._sender
    turn, left = sender._turn, [MemoryError()]

    def interrupted(most):
        if left:
            raise left.pop()
        return turn(most)

    sender._turn = interrupted
    sender.wake()
    wait_for(lambda: processor.stats()["reconnects"] == 1)
    assert processor.flush(DEADLINE_S)
    stats = processor.stats()
    assert (stats["link_errors"], stats["bad_answers"], stats["acked"]) == (1, 0, 11)
