"""What holds for viewers of a relay holds for those of a hub relay: the same tests, with lines that come through NATS.

The mobile app with a device's cursor and `logrelay tail`, through kills of the hub relay, resuming from every id, pages
of /logs, events, and every kind of message.
"""

from __future__ import annotations

import pytest

from tests.support.chaos.scale import scaled
from tests.support.nats import needs_nats
from tests.system.chaos.conftest import FULL_TIMEOUT_S
from tests.system.chaos.test_devices import test_kills_of_the_relay
from tests.system.chaos.test_viewers_behind import test_resume_is_exact_from_every_id
from tests.system.http.test_relay_http import (
    test_continue_behind_the_last_id,
    test_logs_of_many_pages,
    test_logs_that_go_on,
    test_server_sent_events,
)
from tests.system.http.test_schema import test_every_kind_of_message
from tests.system.terminal.conftest import cli, environ, home, start
from tests.system.terminal.test_commands import test_tail_through_kills_misses_nothing_and_repeats_nothing

pytest.importorskip("nats", reason="nats-py is not installed (pip install '.[nats]' in the checkout)")
pytestmark = [needs_nats, pytest.mark.timeout(scaled(900, FULL_TIMEOUT_S))]

__all__ = ["cli", "environ", "home", "start", "test_every_kind_of_message", "test_kills_of_the_relay"]
__all__ += ["test_resume_is_exact_from_every_id", "test_tail_through_kills_misses_nothing_and_repeats_nothing"]
__all__ += ["test_continue_behind_the_last_id", "test_logs_of_many_pages"]
__all__ += ["test_logs_that_go_on", "test_server_sent_events"]
