"""Every other route: status, headers, and that nothing a trader logged gets into them."""

from __future__ import annotations

import asyncio
import gzip
from html.parser import HTMLParser
from importlib.resources import files

import orjson
import pytest

from logrelay.http import metrics
from logrelay.http.api import ROUTES, STATIC, HttpApi
from tests.support.http import ListFacts, collect

EVERYTHING = [*ROUTES, *STATIC]


def header(answer, name: str) -> str | None:
    found = [value for key, value in answer.headers if key.lower() == name.lower()]
    assert len(found) <= 1, f"{name} is sent twice"
    return found[0] if found else None


@pytest.mark.parametrize("path", EVERYTHING)
def test_common_headers(api, path):
    """Each answer carries the safety headers, a type, a caching rule and, when its length is known, the length."""
    answer = api.answer("GET", path, {})
    assert answer.status == 200
    assert header(answer, "X-Content-Type-Options") == "nosniff"
    assert header(answer, "Referrer-Policy") == "no-referrer"
    assert header(answer, "Content-Type")
    assert header(answer, "Cache-Control") == ("no-cache" if path in STATIC else "no-store")
    if path not in ("/logs", "/summary"):
        assert header(answer, "Content-Length") == str(len(answer.body))
    for name, value in answer.headers:
        assert "\n" not in name + value
        assert "\r" not in name + value


@pytest.mark.parametrize("path", EVERYTHING)
def test_head(api, path):
    """HEAD has the status and headers of GET and no body."""
    got, head = api.answer("GET", path, {}), api.answer("HEAD", path, {})
    assert head.status == got.status
    assert head.headers == got.headers
    assert head.body == b""


@pytest.mark.parametrize("path", EVERYTHING)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", ""])
def test_other_methods(api, path, method):
    """Any other method is 405 and told which are allowed; OPTIONS is told as well."""
    answer = api.answer(method, path, {})
    assert answer.status == (204 if method == "OPTIONS" else 405)
    assert header(answer, "Allow") == "GET, HEAD, OPTIONS"
    assert (answer.body == b"") == (method == "OPTIONS")


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "",
        "*",
        "/healthz/",
        "//",
        "/static/",
        "/static",
        "/static/index.html",
        "/static//etc/passwd",
        "/static/../api.py",
        "/static/%2e%2e/api.py",
        "/static/main.js\x00",
        "/index.html",
        "/logs/x",
        "http://host/",
        "/HEALTHZ",
    ],
)
def test_unknown_paths(api, target):
    """What is not in the table is 404 with a list of what there is; no path reaches the file system."""
    answer = api.answer("GET", target, {})
    assert answer.status == 404
    body = orjson.loads(answer.body)
    assert body["code"] == "not_found"
    assert all(route in body["message"] for route in ROUTES)


def test_trade_names(facts):
    """Which events and fields are about trades is what the operator said; the page guesses nothing."""
    assert orjson.loads(HttpApi(facts).answer("GET", "/trade-names", {}).body)["fill"] == ["trade.executed"]
    own = HttpApi(facts, trade_names={"fill": ["filled"]})
    assert orjson.loads(own.answer("GET", "/trade-names", {}).body) == {"fill": ["filled"]}
    assert not HttpApi.is_public("/trade-names")


class TestStatic:
    @pytest.mark.parametrize("path", STATIC)
    def test_files(self, api, path):
        """Each path gives the file of the package, whatever the query says."""
        name, content_type = STATIC[path]
        answer = api.answer("GET", f"{path}?token=x", {})
        assert answer.body == files("logrelay").joinpath("static", name).read_bytes()
        assert header(answer, "Content-Type") == content_type

    def test_table_is_the_directory(self):
        """Every file in static/ is in the table and the other way round."""
        there = {entry.name for entry in files("logrelay").joinpath("static").iterdir() if entry.is_file()}
        assert there == {name for name, _ in STATIC.values()}

    @pytest.mark.parametrize("accepted", ["gzip", "deflate, GZIP;q=0.5", "br, gzip, deflate"])
    def test_packed(self, api, accepted):
        """A client that reads gzip gets it, and caches on the way keep both forms apart."""
        plain = api.answer("GET", "/static/main.js", {})
        packed = api.answer("GET", "/static/main.js", {"accept-encoding": accepted})
        assert header(packed, "Content-Encoding") == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        assert header(packed, "Content-Length") == str(len(packed.body))
        assert header(packed, "Vary") == header(plain, "Vary") == "Accept-Encoding"

    @pytest.mark.parametrize("accepted", ["", "gzip;q=0", "deflate, gzip; q=0.0", "br", "gzipped"])
    def test_not_packed(self, api, accepted):
        """A client that does not read gzip, or says that it had better not, gets the file as it is."""
        answer = api.answer("GET", "/static/main.js", {"accept-encoding": accepted})
        assert header(answer, "Content-Encoding") is None
        assert answer.body == files("logrelay").joinpath("static", "main.js").read_bytes()

    def test_the_service_worker_may_fetch(self, api):
        """Its own policy lets it ask the relay for the page's files and nobody for anything else."""
        answer = api.answer("GET", "/sw.js", {})
        assert header(answer, "Content-Security-Policy") == "default-src 'none'; connect-src 'self'"

    @pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
    def test_etag(self, api, form):
        """A client that has the file gets 304 without a body; one with another version gets the file."""
        etag = header(api.answer("GET", "/static/main.js", {}), "ETag")
        assert etag.startswith('"')
        answer = api.answer("GET", "/static/main.js", {"if-none-match": form.format(etag)})
        assert (answer.status, answer.body) == (304, b"")
        assert header(answer, "ETag") == etag
        assert header(answer, "Content-Length") is None
        assert api.answer("GET", "/static/main.js", {"if-none-match": '"other"'}).status == 200

    def test_a_page_that_is_known_keeps_its_policy(self, api):
        """The headers of a 304 replace those that the browser kept: another policy would block the page's own parts."""
        page = api.answer("GET", "/", {"host": "relay.lan:8765"})
        again = api.answer("GET", "/", {"host": "relay.lan:8765", "if-none-match": header(page, "ETag")})
        assert again.status == 304
        for name in ("Content-Security-Policy", "Cross-Origin-Opener-Policy", "Cache-Control"):
            assert header(again, name) == header(page, name) is not None

    @pytest.mark.parametrize("host", ["relay.lan:8765", "127.0.0.1:8765", "[::1]:8765", "phone"])
    def test_policy_names_the_host(self, api, host):
        """The policy of the page allows its own script, style and host, nothing inline and nothing else."""
        policy = header(api.answer("GET", "/", {"host": host}), "Content-Security-Policy")
        assert f"connect-src 'self' ws://{host} wss://{host};" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "ws: " not in policy
        assert "*" not in policy

    @pytest.mark.parametrize(
        "host", ["", "a; script-src *", "a b", "*", "a\r\nX: y", "evil.example,b", "'unsafe-inline'"]
    )
    def test_policy_survives_a_hostile_host(self, api, host):
        """A Host header that is not a host name leaves 'self' alone."""
        policy = header(api.answer("GET", "/", {"host": host}), "Content-Security-Policy")
        assert "connect-src 'self';" in policy

    def test_page_needs_nothing_else(self):
        """The page refers only to files of the table, and has no inline script, style or handler."""
        found = []

        class Reader(HTMLParser):
            def handle_starttag(self, tag, attrs):
                given = dict(attrs)
                found.extend(given[k] for k in ("src", "href") if k in given)
                assert not any(name.startswith("on") or name == "style" for name in given), given
                assert tag != "style"
                assert tag != "script" or "src" in given

        Reader().feed(files("logrelay").joinpath("static", "index.html").read_text(encoding="utf-8"))
        assert found
        assert {reference if reference.startswith("/") else f"/{reference}" for reference in found} <= set(STATIC)

    def test_is_public(self):
        """Only the viewer's own files are for everyone; whatever tells about the relay or its lines is not."""
        assert all(HttpApi.is_public(path) for path in STATIC)
        assert HttpApi.is_public("/?token=x")
        assert not any(
            HttpApi.is_public(path) for path in ("/logs", "/metrics", "/healthz", "/readyz", "/static/../logs")
        )


class TestHealth:
    def test_ok(self, facts, api):
        """200 with the traders and the age of their last line; facts it was not meant to tell are left out."""
        facts.add(7)
        robo = {"app": "robo_trader", "host": "box", "pid": 42}
        facts.traders = [
            {**robo, "state": "quiet", "last_line_age_s": 90.0, "last_message": "secret"},
            {**robo, "state": "connected", "last_line": None, "last_line_age_s": None},
            {**robo, "state": "crashed", "last_line": "2026-01-23T10:00:01.000000Z", "last_line_age_s": 0.0},
        ]
        answer = api.answer("GET", "/healthz", {})
        body = orjson.loads(answer.body)
        assert answer.status == 200
        assert body["status"] == "ok"
        assert (body["version"], body["head"], body["oldest"]) == ("0.1.0", "k3f9ab-7", "k3f9ab-1")
        assert body["journal"] == {"trouble": None, "bytes": 4096}
        assert [trader["state"] for trader in body["traders"]] == ["quiet", "connected", "crashed"]
        assert body["traders"][0]["last_line_age_seconds"] == 90.0
        assert "last_line_age_seconds" not in body["traders"][1]
        assert body["traders"][2]["last_line_age_seconds"] == 0.0
        assert b"secret" not in answer.body

    def test_trouble(self, facts, api):
        """503 with the reason while the journal is in trouble, and 200 again afterwards."""
        facts.trouble = "disk full"
        answer = api.answer("GET", "/healthz", {})
        body = orjson.loads(answer.body)
        assert (answer.status, body["status"], body["reason"]) == (503, "trouble", "journal: disk full")
        facts.trouble = "journal /j.db: disk full"
        assert orjson.loads(api.answer("GET", "/healthz", {}).body)["reason"] == "journal /j.db: disk full"
        facts.trouble = None
        assert api.answer("GET", "/healthz", {}).status == 200

    def test_ready(self, facts, api):
        """200 when ready, 503 with a reason when not."""
        assert api.answer("GET", "/readyz", {}).status == 200
        facts.is_ready = False
        answer = api.answer("GET", "/readyz", {})
        assert answer.status == 503
        assert orjson.loads(answer.body)["reason"] == "starting or stopping"
        facts.trouble = "disk full"
        assert orjson.loads(api.answer("GET", "/readyz", {}).body)["reason"] == "journal: disk full"


class TestLimitedFacts:
    def test_a_request_is_answered_from_the_facts_that_it_brings(self, facts, api):
        """Not from those that the API was made with: they may be more than its token shows."""
        facts.add(3)
        less = ListFacts(epoch="other1", limited=True)
        less.add(1)
        assert api.answer("GET", "/healthz", {}, less).body.count(b"other1") == 3
        assert asyncio.run(collect(api.answer("GET", "/logs", {}, less))).count(b'"id":"other1-') == 1
        assert dict(api.answer("GET", "/logs", {}, less).headers)["Logrelay-Head"] == "other1-1"
        refused = api.answer("GET", "/metrics", {}, less)
        assert (refused.status, orjson.loads(refused.body)["code"]) == (403, "limited")
        less.is_ready = False
        assert api.answer("GET", "/readyz", {}, less).status == 503
        assert api.answer("GET", "/readyz", {}).status == 200
        assert less.queries


class TestMetrics:
    def test_names(self):
        """Names are unique; counters and only counters end in _total; every row says what it counts."""
        names = [metric.name for metric in metrics.METRICS]
        assert len(names) == len(set(names))
        for metric in metrics.METRICS:
            assert metric.type in ("counter", "gauge")
            assert metric.name.endswith("_total") == (metric.type == "counter")
            assert metric.help.endswith(".")

    def test_a_scraper_reads_it(self):
        """The Prometheus client library's own parser reads every metric, with its type, help, labels and value."""
        parser = pytest.importorskip("prometheus_client.parser")
        plain = [metric.name for metric in metrics.METRICS if not metric.labels]
        values = {name: i + 0.5 if i % 2 else i for i, name in enumerate(plain)}
        names = ["bot", 'a "b" \\ c\n{x="y"} # é', "\r", ""]
        labelled = {
            metric.name: [(dict.fromkeys(metric.labels, name), i) for i, name in enumerate(names)]
            for metric in metrics.METRICS
            if metric.labels
        }
        families = list(parser.text_string_to_metric_families(metrics.expose(values, labelled)))
        assert [f.documentation for f in families] == [metric.help for metric in metrics.METRICS]
        assert [f.type for f in families] == [metric.type for metric in metrics.METRICS]
        samples = {s.name: s.value for f in families for s in f.samples if not s.labels}
        assert samples == {f"logrelay_{name}": value for name, value in values.items()}
        read = {f.name: [(s.labels, s.value) for s in f.samples] for f in families if f.samples[0].labels}
        assert read == {f"logrelay_{name.removesuffix('_total')}": found for name, found in labelled.items()}

    def test_missing_and_unknown(self):
        """What nobody counted is left out; what nobody described is shown all the same."""
        text = metrics.expose({"viewers": 2, "surprise": 1, "journal_trouble": True}, {})
        assert "logrelay_viewers 2\n" in text
        assert "logrelay_journal_trouble 1\n" in text
        assert "# TYPE logrelay_surprise untyped\nlogrelay_surprise 1\n" in text
        assert "lines_total" not in text

    def test_route(self, facts, api):
        """The relay's counters, the uptime and the API's own counters are in the answer."""
        facts.add(7)
        answer = api.answer("GET", "/metrics", {})
        text = answer.body.decode()
        assert header(answer, "Content-Type").startswith("text/plain; version=0.0.4")
        for row in ("lines_total 7", "viewers 3", "uptime_seconds 12.5", "searches 0", "searches_total 0"):
            assert f"logrelay_{row}\n" in text
