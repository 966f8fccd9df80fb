"""Where a long text is cut, no part of a secret that the cut tore apart is shown; what is remembered is bounded."""

import pytest

from robo_trader.logging.redaction import MAX_TEXT, Redactor

TOKEN = "ghp_" + "a1B2c3D4e5" * 4
"""Recognised by its shape, as a whole only."""


@pytest.mark.parametrize("before", [1, 5, 12, 20, len(TOKEN) - 1])
@pytest.mark.parametrize("blank", [" ", "\n"])
def test_a_secret_that_the_cut_tears_is_not_shown(before, blank):
    """However many of its characters stand before the cut: a torn secret looks like none, so its whole word goes."""
    text = ("word " * MAX_TEXT)[: MAX_TEXT - before - 1] + blank + TOKEN + " and more"
    assert Redactor()(None, "info", {"event": TOKEN})["event"] != TOKEN
    shown = Redactor()(None, "info", {"event": text})["event"]
    assert TOKEN[: min(before, 5)] not in shown[MAX_TEXT - 300 :]
    assert shown.startswith("word word ")
    assert "more characters not shown" in shown


def test_a_text_without_blanks_loses_as_much_as_a_secret_can_be_long():
    """A dump without any blank ends some hundred characters before the cut, and says how many are not shown."""
    text = "x" * (MAX_TEXT - 12) + TOKEN + "y" * 100
    shown = Redactor()(None, "info", {"event": text})["event"]
    kept, note = shown.split(" [")
    assert set(kept) == {"x"}
    assert MAX_TEXT - 400 < len(kept) < MAX_TEXT - 12
    assert note == f"{len(text) - len(kept)} more characters not shown]"


def test_the_longest_text_is_not_cut():
    """The bound itself is within the bound."""
    text = "word " * (MAX_TEXT // 5) + "w" * (MAX_TEXT % 5)
    assert Redactor()(None, "info", {"event": text})["event"] == text
    shown = Redactor()(None, "info", {"event": text + "w"})["event"]
    assert "more characters not shown" in shown


def test_whatever_is_remembered_is_bounded():
    """Neither keys nor texts, at the top or nested, of ten thousand lines or of long ones, fill the memory."""
    redactor = Redactor()
    sizes = {name: len(value) for name, value in vars(redactor).items() if hasattr(value, "__len__")}
    for number in range(10_000):
        redactor(None, "info", {f"key{number}": f"value{number}", "nested": {f"inner{number}": [f"text{number}"]}})
        redactor(None, "info", {"k" * 100 + str(number): "v" * 100 + str(number)})
    for name, value in vars(redactor).items():
        if hasattr(value, "__len__"):
            assert len(value) <= max(4_096, sizes[name]), name
            assert all(len(kept) <= 64 for kept in value if isinstance(kept, str)), name
            assert all(len(kept) <= 256 for kept in value if isinstance(kept, bytes)), name
