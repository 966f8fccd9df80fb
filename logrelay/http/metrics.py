"""The names the relay is measured by, and their Prometheus text.

Owns: `METRICS`, the one table of names that /metrics, its documentation and the tests share, and `expose`. It must not
know who counts. No I/O, no clock. Read `http/api` next: it serves the text.

The text is written by hand: without histograms it is a line per sample and two above them, and the client library would
cost every relay its import and memory for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

PREFIX = "logrelay_"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The Prometheus text format, which every scraper understands."""


Sample = tuple[Mapping[str, str], int | float]
"""Labels, by name, and the value."""


class Metric(NamedTuple):
    """One row of the table; the exported name is `logrelay_<name>`."""

    name: str
    type: str
    """`counter` (only rises, from 0 at the start of the process; its name ends in `_total`) or `gauge`."""
    help: str
    labels: tuple[str, ...] = ()
    """What tells its samples apart; a metric without labels has one sample."""


METRICS: tuple[Metric, ...] = (
    Metric("lines_total", "counter", "Lines committed to the journal, notices included."),
    Metric("bytes_total", "counter", "Bytes of viewer messages committed to the journal."),
    Metric("commits_total", "counter", "Transactions committed to the journal."),
    Metric("pending_lines", "gauge", "Lines received and not yet committed."),
    Metric("journal_bytes", "gauge", "Size of the journal on disk."),
    Metric("journal_damaged_lines", "gauge", "Kept lines that are lost to damage of the journal's file."),
    Metric("journal_trouble", "gauge", "1 while the journal cannot be written, else 0."),
    Metric("journal_upkeep_trouble", "gauge", "1 while retention or checkpoints fail and commits work, else 0."),
    Metric(
        "journal_stalled_seconds",
        "gauge",
        "Seconds that the disk has been at one write, sync or checkpoint of the journal; 0 while at none.",
    ),
    Metric("journal_log_bytes", "gauge", "Size of the write-ahead log at the last checkpoint."),
    Metric(
        "journal_log_pinned_seconds",
        "gauge",
        "Seconds since another program that reads the file has kept a long write-ahead log from getting shorter; 0 "
        "while none does.",
    ),
    Metric(
        "journal_index_behind_lines",
        "gauge",
        "Lines that the text index does not have yet; a search looks at them one by one.",
    ),
    Metric("journal_disk_free_bytes", "gauge", "Free bytes of the journal's file system, where it says."),
    Metric("journal_disk_low", "gauge", "1 while half of --keep-free or less is free on the journal's file system."),
    Metric("journal_expired_lines_total", "counter", "Lines deleted because of --keep-days."),
    Metric("journal_evicted_size_lines_total", "counter", "Lines deleted because of --keep-bytes."),
    Metric("journal_evicted_space_lines_total", "counter", "Lines deleted because of --keep-free, or of a full disk."),
    Metric("traders", "gauge", "Traders connected now, quiet ones included."),
    Metric("traders_quiet", "gauge", "Traders connected now that have said nothing for longer than usual."),
    Metric("runs", "gauge", "Runs that would be known if they came back, connected ones included."),
    Metric("runs_forgotten_early_total", "counter", "Ended runs forgotten because there were too many of them."),
    Metric("trader_connections_total", "counter", "Trader connections that were welcomed."),
    Metric("trader_refused_total", "counter", "Trader connections that were refused."),
    Metric("trader_rejected_frames_total", "counter", "Frames of traders that could never be accepted."),
    Metric("trader_lost_lines_total", "counter", "Lines that traders had to drop or never sent."),
    Metric("trader_duplicate_frames_total", "counter", "Frames that were in the journal already, and ignored."),
    Metric(
        "trader_crashes_total", "counter", "Traders whose process ended without saying goodbye, or said that it failed."
    ),
    Metric("traders_lost", "gauge", "Traders that lost their connection and are not known to be dead."),
    Metric("trader_connections_lost_total", "counter", "Times a trader lost its connection and was not back at once."),
    Metric("trader_connections_given_up_total", "counter", "Trader connections closed for their silence."),
    Metric(
        "trader_up",
        "gauge",
        "By app: 1 while a run of it is connected, or has just lost its connection and may come back; 0 for a week "
        "when none is and one of the last ended without goodbye. No sample when all ended cleanly. Bots of collected "
        "machines (at most 200) have the label edge besides, and no sample while that is unreachable.",
        ("app",),
    ),
    Metric(
        "trader_last_line_age_seconds",
        "gauge",
        "By app: seconds since its last line, by a clock that never steps; the wall clock is asked once, at the start, "
        "for the lines from before. Never negative. No sample where trader_up has none.",
        ("app",),
    ),
    Metric(
        "trader_lines_total",
        "counter",
        "By app and level (debug, info, warning, error, critical): lines taken from its runs.",
        ("app", "level"),
    ),
    Metric("edges", "gauge", "Machines whose lines are collected (--collect), unreachable ones included."),
    Metric("edges_unreachable", "gauge", "Of them those of which nothing is known now."),
    Metric("edge_up", "gauge", "By edge: 1 while it is heard, 0 while it is unreachable; at most 200.", ("edge",)),
    Metric("edge_heard_age_seconds", "gauge", "By edge: seconds since it last said how it is.", ("edge",)),
    Metric("edge_lag_lines", "gauge", "By edge: lines that the stream does not have yet, as it said last.", ("edge",)),
    Metric("edge_bots", "gauge", "By edge: runs of bots that it knows, as it said last.", ("edge",)),
    Metric("collect_connected", "gauge", "1 while there is a connection to collect lines over, else 0."),
    Metric("collect_reconnects_total", "counter", "Connections that were made to collect lines, the first included."),
    Metric("collect_waiting_messages", "gauge", "Messages that the stream still had when the last one was read."),
    Metric("collected_messages_total", "counter", "Messages of the stream that were read."),
    Metric("collected_lines_total", "counter", "Lines that were taken out of them."),
    Metric("collected_duplicate_lines_total", "counter", "Lines of them that were kept already, and left out."),
    Metric("collected_missing_lines_total", "counter", "Lines of edges that were told to be missing."),
    Metric("collected_bad_messages_total", "counter", "Messages of edges that could not be read."),
    Metric("viewers", "gauge", "Viewers connected now."),
    Metric("viewers_behind", "gauge", "Viewers that are reading from the journal to catch up."),
    Metric("viewer_lines_total", "counter", "Lines written to viewers."),
    Metric("viewer_bytes_total", "counter", "Bytes written to viewers."),
    Metric("viewer_gaps_total", "counter", "Gap notices that single viewers got."),
    Metric("viewer_lines_skipped_total", "counter", "Lines that viewers were told they would not get."),
    Metric("devices", "gauge", "Devices that a position is kept for (?device=NAME)."),
    Metric("devices_connected", "gauge", "Of them those that are connected now."),
    Metric("device_resumes_total", "counter", "Times a device went on where it was."),
    Metric(
        "device_late_total",
        "counter",
        "Times a device came back after --device-window and began with the newest lines.",
    ),
    Metric("device_conflicts_total", "counter", "Connections with the name of a device that was connected and alive."),
    Metric("devices_forgotten_total", "counter", "Devices forgotten for others, or after 30 days."),
    Metric("handshakes_refused_total", "counter", "Connections of viewers and HTTP clients that were refused."),
    Metric("token_explanations_total", "counter", "Refused clients that were told in a line that they need a token."),
    Metric("wrong_tokens_total", "counter", "Requests that showed a wrong token."),
    Metric(
        "requests_malformed_total",
        "counter",
        "By reason: requests that were no good HTTP, each answered and closed; see docs/protocol.md.",
        ("reason",),
    ),
    Metric("internal_errors_total", "counter", "Errors inside the relay that nobody expected; each is a bug."),
    Metric("forward_connected", "gauge", "1 while the relay is connected to a NATS server of --forward, else 0."),
    Metric("forward_lines_total", "counter", "Lines that the stream has acknowledged."),
    Metric("forward_bytes_total", "counter", "Bytes of their messages."),
    Metric("forward_batches_total", "counter", "Their messages."),
    Metric("forward_in_flight", "gauge", "Messages that are sent and not acknowledged, 0 or 1."),
    Metric("forward_lag_lines", "gauge", "Committed lines that the stream does not have."),
    Metric("forward_lag_seconds", "gauge", "For how long the oldest of them has waited, as far as this process knows."),
    Metric("forward_reconnects_total", "counter", "Times the relay has connected to a NATS server again."),
    Metric("forward_duplicates_total", "counter", "Times the stream had what was sent again, and refused it."),
    Metric(
        "forward_lost_lines_total", "counter", "Lines deleted before they were forwarded, or too large for the server."
    ),
    Metric("uptime_seconds", "gauge", "Seconds since the relay started."),
    Metric("searches", "gauge", "Answers to GET /logs that are being written now."),
    Metric("searches_total", "counter", "Answers to GET /logs that were begun."),
    Metric("search_lines_total", "counter", "Lines written in answers to GET /logs."),
    Metric("searches_refused_total", "counter", "Requests for /logs answered with 503, busy."),
    Metric("alerts_sent_total", "counter", "Alerts that a service has taken."),
    Metric("alerts_failed_total", "counter", "Attempts to send an alert that failed; each is tried again."),
    Metric("alerts_given_up_total", "counter", "Alerts given up: too old, too many, or for a service that is gone."),
    Metric("alerts_held_back_total", "counter", "Matters that came later: quiet hours, or too many in an hour."),
    Metric("alerts_silenced_total", "counter", "Times nobody was told of something, because its bot was silenced."),
    Metric("alerts_waiting", "gauge", "Alerts that are to be sent, or are being sent."),
    Metric("alerts_oldest_age_seconds", "gauge", "Age of the oldest of them; 0 when there is none."),
    Metric("alerts_worker_starts_total", "counter", "Starts of the process of the alerts; 1 is the usual number."),
    Metric("heartbeats_sent_total", "counter", "Heartbeats that were answered with a good status."),
    Metric("heartbeats_failed_total", "counter", "Heartbeats that were not."),
    Metric("heartbeats_withheld_total", "counter", "Heartbeats not sent: the relay or a bot was not well."),
    Metric("viewer_handshake_limit_total", "counter", "Connections cut without a complete request: too many."),
    Metric("viewer_answer_limit_total", "counter", "Connections cut with answers unread: too many."),
    Metric("viewer_unread_limit_total", "counter", "Connections cut that did not read: too much waited for all."),
    Metric("viewer_stalled_limit_total", "counter", "Long answers cut: nothing was read, and others waited."),
    Metric("viewer_messages_limit_total", "counter", "Times a viewer had to wait: more messages than it may send."),
    Metric("viewer_share_limit_total", "counter", "Viewers closed with 4429: another address needed the place."),
    Metric("viewer_undecoded_limit_total", "counter", "Viewers closed with 4429: too much held."),
)


def expose(values: Mapping[str, int | float], labelled: Mapping[str, Sequence[Sample]]) -> str:
    """Write the values in the Prometheus text format, in the order of the table.

    `labelled` has the samples of the metrics with labels. A metric without a value is left out, which a scraper can
    tell from zero. A value without a row in the table is written as `untyped`: a forgotten row must not hide a number
    from the person who needs it.
    """
    samples: dict[str, Sequence[Sample]] = {name: (({}, value),) for name, value in values.items()}
    samples |= {name: found for name, found in labelled.items() if found}
    known = {metric.name for metric in METRICS}
    rows = [metric for metric in METRICS if metric.name in samples]
    rows += [Metric(name, "untyped", "Not described.") for name in sorted(samples.keys() - known)]
    text: list[str] = []
    for row in rows:
        name = PREFIX + row.name
        text += [f"# HELP {name} {row.help}\n# TYPE {name} {row.type}\n"]
        text += [f"{name}{_labels(labels)} {_number(value)}\n" for labels, value in samples[row.name]]
    return "".join(text)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()) + "}"


_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
"""In a label's value the format escapes these three, and nothing else."""


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(value)
