"""docs/terminal.md: every example prints what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "terminal.md").read_text("utf-8")
EXAMPLES = [
    (block[0], [row[4:] for row in block[1].splitlines()])
    for block in re.findall(r"^    \$ logrelay (.+)\n((?:    .*\n)*)", PAGE, re.MULTILINE)
]
COMMANDS = ["tail", "search", "export", "status", "purge", "pair"]


def test_every_command_has_an_example():
    """A command that nobody shows is not found."""
    assert {shlex.split(command)[0] for command, _ in EXAMPLES} == set(COMMANDS)


def settled(text, home):
    """Return output with what differs each time as the page writes it."""
    text = text.replace(str(home), "~").replace("  (nobody answers there now)", "")
    text = re.sub(r"\d+\.\d MiB", "0.1 MiB", text)
    text = re.sub(r"lr_[A-Za-z0-9_-]{43}", "TOKEN", text)
    return re.sub(r"\d+ (?:d|h|min|s)(?: \d+ (?:h|min|s))? ago", "... ago", text)


@pytest.mark.parametrize(("command", "expected"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_the_example_prints_what_the_page_says(cli, home, journal, command, expected):
    """stdout first, then what is on stderr besides the line about where it was read."""
    done = cli(*shlex.split(command), LOGRELAY_PORT="8765" if command.startswith("pair") else "1")
    rows = [row for row in done.stderr.splitlines() if "reading its journal" not in row]

    assert settled(done.stdout + "".join(f"{row}\n" for row in rows), home).splitlines() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(cli, shell):
    """The line of the page should give a script, and the script's question an answer."""
    assert f"_LOGRELAY_COMPLETE={shell}_source logrelay" in PAGE
    if shell == "bash":  # click asks the shell that is there for its version
        assert "not supported" not in cli(_LOGRELAY_COMPLETE="bash_source").stderr
    else:
        assert "_LOGRELAY_COMPLETE" in cli(_LOGRELAY_COMPLETE=f"{shell}_source").stdout

    def completed(*words):
        last = words[-1]
        given = " ".join(words) if shell != "fish" else " ".join(words[:-1])
        count = last if shell == "fish" else str(len(words) - 1)
        asked = cli(_LOGRELAY_COMPLETE=f"{shell}_complete", COMP_WORDS=given, COMP_CWORD=count).stdout
        return set(re.findall(r"[\w-]+", asked))

    assert "tail" in completed("logrelay", "ta")
    assert {"--level", "--since"} <= completed("logrelay", "tail", "--")
    assert "parquet" in completed("logrelay", "export", "--format", "p")
    assert completed("logrelay", "tail", "--level", "w") - {"plain", "_"} == {"warning"}
    for words in (("tail", ""), ("export", "--output", ""), ("serve", "--socket", ""), ("send", "--socket", "")):
        assert "file" in completed("logrelay", *words)
    assert "normal" in completed("logrelay", "serve", "--sync", "n")
    if not (cli("token", "list").stdout):
        cli("token", "add", "tablet")
    assert "tablet" in completed("logrelay", "token", "revoke", "ta")
