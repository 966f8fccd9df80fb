"""What an owner can set: names to hide or to leave, personal data, secrets by value, a redactor of one's own."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from robo_trader.logger import get_logger, setup_structlog
from robo_trader.logging.redaction import MARK, Redactor, from_environment

SECRET = "tandem/gull+4471"


def show(redactor, **fields):
    return redactor(None, "info", {"event": "e", **fields})


def test_names_are_denied_and_allowed_by_argument_and_by_environment():
    """Both ways add up, names are compared without case and punctuation, and what is allowed wins."""
    environ = {"LOGRELAY_REDACT_DENY": "desk_code, X-Acme", "LOGRELAY_REDACT_ALLOW": "api-key,"}
    redactor = Redactor(environ=environ, deny=["strategy"], allow=["session_token"])
    shown = show(
        redactor, deskCode="a", x_acme=1, strategy="b", api_key="shown", session_token="shown", password="c",
        note="desk_code=a x-acme: b strategy=c api_key=shown",
    )  # fmt: skip
    assert [shown[k] for k in ("deskCode", "x_acme", "strategy", "password")] == [MARK] * 4
    assert (shown["api_key"], shown["session_token"]) == ("shown", "shown")
    assert shown["note"] == f"desk_code={MARK} x-acme: {MARK} strategy={MARK} api_key=shown"
    assert show(Redactor(environ={}, allow=["pin"], deny=["pin"]), pin=1234)["pin"] == 1234


def test_a_denied_name_of_other_letters_is_found_in_text():
    """A name is not always English."""
    assert show(Redactor(environ={}, deny=["straße"]), note="straße=Hauptweg 1")["note"].startswith(f"straße={MARK}")


PERSONAL = {
    "email": "ann@desk.example",
    "first_name": "Ann",
    "username": "ann7",
    "phone": "030 1234567",
    "clientIp": "9.9.9.9",
}


@pytest.mark.parametrize(
    ("redactor", "hidden"),
    [
        (Redactor(environ={}), False),
        (Redactor(environ={}, personal=True), True),
        (Redactor(environ={"LOGRELAY_REDACT_PERSONAL": "on"}), True),
        (Redactor(environ={"LOGRELAY_REDACT_PERSONAL": "on"}, personal=False), False),
        (Redactor(environ={"LOGRELAY_REDACT_PERSONAL": "off"}), False),
    ],
)
def test_personal_data_is_hidden_when_wanted(redactor, hidden):
    """Names, mail addresses and numbers, in fields and in text; the argument beats the environment."""
    shown = show(redactor, note="mail to ann@desk.example or call +49 30 1234567, user ann7", **PERSONAL)
    assert [shown[key] == MARK for key in PERSONAL] == [hidden] * len(PERSONAL)
    assert ("ann@desk.example" not in shown["note"] and "1234567" not in shown["note"]) is hidden
    assert show(redactor, symbol="AAPL", order_id="ord-1", note="AAPL 100 @ 187.32") == {
        "event": "e", "symbol": "AAPL", "order_id": "ord-1", "note": "AAPL 100 @ 187.32"
    }  # fmt: skip


def test_a_typing_error_hides_more_and_is_said(capfd):
    """Whoever set the variable wanted something hidden; the line on stderr names what is allowed."""
    redactor = Redactor(environ={"LOGRELAY_REDACT_PERSONAL": "yess"})
    assert show(redactor, email="a@b.example")["email"] == MARK
    assert "LOGRELAY_REDACT_PERSONAL='yess' is neither on nor off" in capfd.readouterr().err


FORMS = {
    "as it is": SECRET,
    "URL": quote(SECRET, safe=""),
    "URL, small": quote(SECRET, safe="").lower(),
    "URL, slash kept": quote(SECRET),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of a pair": base64.b64encode(f"bot:{SECRET}".encode()).decode(),
    "base64 of another pair": base64.b64encode(f"bots:{SECRET}:x".encode()).decode(),
    "base64 of a third": base64.b64encode(f"robot:{SECRET}xy".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(f"a{SECRET}".encode()).decode(),
    "hex": SECRET.encode().hex(),
    "JSON": json.dumps(SECRET)[1:-1],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_known_secret_is_found_in_every_form(form):
    """Of each form of a secret of the environment nothing may be left but what its neighbours changed."""
    text = FORMS[form]
    shown = Redactor(environ={"BROKER_PASSWORD": SECRET}).text(f"sent {text} to the gateway")
    left = shown.removeprefix("sent ").removesuffix(" to the gateway").partition(MARK)
    assert left[1] == MARK
    assert len(left[0]) + len(left[2]) <= 13  # "robot:" in base64, and the letters at both ends


@pytest.mark.parametrize(
    ("environ", "known"),
    [
        ({"DATABASE_URL": "postgres://bot:s3cret-gull@db/x"}, ["s3cret-gull"]),
        ({"DATABASE_URL": "postgres://bot:a%2Fb%2Fc12345@db:5432/x"}, ["a%2Fb%2Fc12345", "a/b/c12345"]),
        ({"REDIS": "redis://:swordfish-9@cache:6379/0"}, ["swordfish-9"]),
        ({"DSN": "host=db password=swordfish9 user=x"}, ["swordfish9"]),
        ({"RPC": "https://rpc.example/?api_key=q1w2e3r4t5&x=1"}, ["q1w2e3r4t5"]),
        (
            {"SENTRY": "https://0f1e2d3c4b5a69788796a5b4c3d2e1f0@o1.ingest.example/2"},
            ["0f1e2d3c4b5a69788796a5b4c3d2e1f0"],
        ),
        ({"HOMEPAGE": "https://example.org/a@b", "PROXY": "http://proxy:3128", "GIT": "ssh://git@host/x"}, []),
        (
            {"TOKEN_COUNT": "12345678", "DB_PASSWORD": "short", "SSH_KEY_PATH": "/root/.ssh/id", "AUTH": "production"},
            [],
        ),
        ({"TOKEN": "WETH-USDC", "SESSION": "new-york-open"}, []),
    ],
)
def test_the_secrets_of_an_environment(environ, known):
    """By the names of the variables, and inside the URLs and connection strings of any."""
    assert from_environment(environ) == known


def test_the_redactor_reads_the_environment_of_the_process(monkeypatch):
    """Without arguments it knows the secrets there are when it is made."""
    monkeypatch.setenv("BROKER_PASSWORD", "gulls-in-tandem")
    assert show(Redactor(), note="try gulls-in-tandem")["note"] == f"try {MARK}"
    assert show(Redactor(environ={}), note="try gulls-in-tandem")["note"] == "try gulls-in-tandem"


def test_a_redactor_of_ones_own_keeps_the_known_secrets(chain, monkeypatch):
    """Its rules are its own; what the environment holds is hidden behind it, and only that."""
    monkeypatch.setenv("BROKER_PASSWORD", "gulls-in-tandem")

    def mine(_logger, _method, event):
        event["seen"] = True
        return event

    recorder, console = chain(redactor=mine)
    get_logger().info("login gulls-in-tandem", password="left alone", token="a1B2c3D4e5F6g7H8")
    (event,) = recorder.events
    assert (event["event"], event["seen"]) == (f"login {MARK}", True)
    assert (event["password"], event["token"]) == ("left alone", "a1B2c3D4e5F6g7H8")
    assert "gulls-in-tandem" not in console.getvalue()


def test_the_place_in_a_source_file_stays_in_the_line(chain):
    """`at` names file and line, also of a file that is called auth.py."""
    recorder, _ = chain()
    code = compile("def refuse(log):\n    log.warning('refused')\n", "/app/auth.py", "exec")
    names = {}
    exec(code, names)
    names["refuse"](get_logger())
    assert recorder.events[0]["at"] == "auth.py:2 refuse"


def test_setup_keeps_working_without_hooks(chain):
    """The chain's own redactor may be replaced by one of ours with settings."""
    recorder, _ = chain(redactor=Redactor(environ={}, deny=["desk"]), hooks=False)
    get_logger().info("x", desk="a")
    assert recorder.events[0]["desk"] == MARK
    setup_structlog(relay=False, hooks=False)
