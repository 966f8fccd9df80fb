"""The rows of the siege: which attack, on which listener, with or without a token, and what has to hold meanwhile.

Owns: `ROWS` and the limits. To add a row, write a function in `viewer_attacks` or `trader_attacks` and name it here.
Read `siege` next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DURING_BYTES = 160 << 20
"""The relay's memory during an attack, at most."""

AFTER_BYTES = 90 << 20
"""And after it, once it has had time to settle."""

MORE_LATENCY_S = 0.25
"""The healthy viewer's p99 may be so much above its own without an attack."""

ANSWER_S = 1.0
"""Health checks and newcomers are answered within this time."""

MORE_CALL_S = 0.005
"""What the p99 of the trader's calls may be above its own without an attack: two cores are shared with the attacker."""

STDERR_BYTES = 16 << 10
"""What the relay may say on stderr during one attack: it is told, with counts, and not told a million times."""


@dataclass(frozen=True)
class Row:
    """One attack."""

    attack: str
    listener: Literal["viewers", "traders"] = "viewers"
    relay_token: bool = False
    """The relay wants a token from viewers."""
    knows_token: bool = False
    """The attacker has it."""
    lines: int = 0
    """Lines that the journal holds already."""
    recent: int = 0
    """Lines that another trader logs before the attack: the relay still has them in memory."""
    tls: bool = False
    """The viewers' port speaks TLS."""

    @property
    def name(self) -> str:
        """The row's name: listener, attack, and what it is about TLS and the token."""
        token = "" if not self.relay_token else "+token" if self.knows_token else "-token"
        return f"{self.listener}/{self.attack}{'+tls' if self.tls else ''}{token}"


FEW, MANY = 20_000, 1_000_000
"""Lines in the journal: enough for a long answer; enough that a search through all of them takes a while."""

ROWS = (
    # Without a complete request: nobody has a token yet.
    Row("half_open"),
    Row("slow_headers"),
    Row("big_headers"),
    Row("big_headers_again"),
    Row("long_request_line"),
    Row("connect_reset"),
    Row("half_open", relay_token=True),
    Row("big_headers", relay_token=True),
    Row("big_headers", relay_token=True, knows_token=True),
    # Before and during a TLS handshake.
    Row("half_open", tls=True),
    Row("half_client_hellos", tls=True),
    Row("client_hellos", tls=True),
    Row("plain_text", tls=True, relay_token=True),
    # Requests.
    Row("bytes_behind_request"),
    Row("bytes_behind_request", relay_token=True),
    Row("pipelined_requests"),
    Row("malformed_requests"),
    Row("wrong_tokens", relay_token=True),
    Row("wrong_token_viewers", relay_token=True),
    Row("wrong_tokens_in_urls", relay_token=True),
    Row("wrong_tokens_in_urls"),
    Row("tokens_from_many_addresses", relay_token=True),
    Row("chunked_bodies"),
    Row("http2_upgrades"),
    Row("page_flood"),
    Row("metrics_flood"),
    Row("unread_pages", relay_token=True),
    Row("unread_logs", lines=FEW),
    Row("log_scans", lines=MANY),
    Row("many_globs_in_logs", lines=FEW),
    Row("summaries", lines=MANY),
    Row("where_scans", lines=MANY),
    Row("followers_unread", lines=FEW),
    Row("event_visits", lines=FEW),
    Row("slow_events"),
    # WebSockets: bytes.
    Row("upgrade_flood"),
    Row("costly_upgrades"),
    Row("viewers_unread", lines=FEW),
    Row("viewers_unread_alone", lines=FEW),
    Row("compressed_viewers_unread", lines=FEW),
    Row("inflate_bombs"),
    Row("compressed_reconnects"),
    Row("ping_frames_unread"),
    Row("tiny_ping_frames"),
    Row("pong_frames"),
    Row("ping_messages_read"),
    Row("ping_messages_unread"),
    Row("ping_messages_read", relay_token=True, knows_token=True),
    Row("half_frames"),
    Row("too_long_frames"),
    Row("fragments"),
    Row("bad_messages"),
    Row("closes_unread"),
    Row("odd_control_frames"),
    Row("context_takeover"),
    Row("closings", lines=FEW),
    # WebSockets: work.
    Row("subscribe_storm", recent=FEW),
    Row("subscribe_storm_many", recent=FEW),
    Row("subscribe_storm", relay_token=True, knows_token=True, recent=FEW),
    Row("subscribe_where", recent=FEW),
    Row("queued_subscribes", lines=MANY, recent=FEW),
    Row("many_globs", recent=FEW),
    Row("glob_changes", recent=FEW),
    Row("history_storm", lines=FEW),
    Row("history_unread", lines=FEW),
    Row("history_searches", lines=MANY),
    Row("device_names", lines=FEW),
    # The traders' socket: whoever may open the socket is a trader.
    Row("nested_headers", listener="traders"),
    Row("nested_headers_first", listener="traders"),
    Row("flat_declared", listener="traders"),
    Row("empty_maps_first", listener="traders"),
    Row("empty_maps", listener="traders"),
    Row("half_frames", listener="traders"),
    Row("half_frames_dripped", listener="traders"),
    Row("silent", listener="traders"),
    Row("slow_hello", listener="traders"),
    Row("logger_names", listener="traders"),
    Row("app_names", listener="traders"),
    Row("hello_flood", listener="traders"),
    Row("hello_crash_flood", listener="traders"),
    Row("lost_flood", listener="traders"),
    Row("bad_frames", listener="traders"),
    Row("rejected_lines", listener="traders"),
    Row("small_lines", listener="traders"),
    Row("critical_lines", listener="traders"),
    Row("big_lines", listener="traders"),
    Row("answers_unread", listener="traders"),
    Row("poisoned_seq", listener="traders"),
    Row("huge_hellos", listener="traders"),
    Row("other_pids", listener="traders"),
    Row("spool_replays", listener="traders"),
    Row("pings", listener="traders"),
)
