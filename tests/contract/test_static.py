"""The web viewer's files: every module is needed and served, owns its state, and the whole stays small.

There is no build step that would say any of this, so the text of the files is read here.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path, PurePosixPath

import pytest

from logrelay import __version__
from logrelay.http.api import STATIC, HttpApi
from tests.support.http import api, facts

__all__ = ["api", "facts"]

STATIC_FILES = {
    entry.name: entry.read_text("utf-8")
    for entry in files("logrelay").joinpath("static").iterdir()
    if not entry.name.endswith(".png")
}
WORKER = "sw.js"
"""The service worker: no part of the page, which registers it by its path."""
MODULES = {name: text for name, text in STATIC_FILES.items() if name.endswith(".js")}
MAX_BYTES = 120_000
"""All that a phone loads for the page: 0.6 s at 200 kB/s, so that there is time left for the first rows."""

IMPORT = re.compile(r'^(?:import\b|export\b[^;"\']*\bfrom\b)[^;"\']*["\']([^"\']+)["\'];', re.MULTILINE)
"""A static import, over one line or several; what it names is relative to the module."""
SHARED_VARIABLE = re.compile(r"^(?:export\s+)?(?:let|var)\b.*", re.MULTILINE)
"""A variable of the whole module: its statements, and no others, begin in the first column."""
OPENING = re.compile(r"/\*\*\n(.+?)\*/", re.DOTALL)
NEXT = re.compile(r"Read `static/(\w+\.js)` next")


def imports(name: str) -> set[str]:
    named = IMPORT.findall(MODULES[name])
    assert all(re.fullmatch(r"\./\w+\.js", target) for target in named), named
    return {PurePosixPath(target).name for target in named}


def reached(name: str) -> set[str]:
    """Everything that a module imports, directly or not."""
    found: set[str] = set()
    waiting = imports(name)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting |= imports(one)
    return found


def test_every_module_is_needed():
    """The script of the page and its imports are all modules there are."""
    (script,) = re.findall(r'<script type="module" src="static/(\w+\.js)"></script>', STATIC_FILES["index.html"])
    assert reached(script) | {script, WORKER} == set(MODULES)
    assert f'register(new URL("{WORKER}"' in MODULES[script]
    assert imports(WORKER) == set()


def test_modules_are_loaded_at_once():
    """The page names what its script imports, so that the browser does not find it out one import at a time."""
    preloaded = re.findall(r'<link rel="modulepreload" href="static/(\w+\.js)">', STATIC_FILES["index.html"])
    assert len(preloaded) == len(set(preloaded))
    assert set(preloaded) == reached("main.js")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_is_served(name):
    """A module has a path beside the others, the type that browsers insist on, and needs no token."""
    path = f"/{name}" if name == WORKER else f"/static/{name}"
    assert STATIC[path] == (name, "text/javascript; charset=utf-8")
    assert HttpApi.is_public(path)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_state_has_an_owner(name):
    """No variable belongs to a whole module: what changes belongs to an object or to one call."""
    assert SHARED_VARIABLE.findall(MODULES[name]) == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_circle(name):
    """No module imports itself, directly or not."""
    assert name not in reached(name)


def test_client_stands_alone():
    """The client is also used without a page: it imports nothing and names nothing that only browsers have."""
    assert imports("client.js") == set()
    assert (
        re.findall(r"\b(?:document|window|location|navigator|sessionStorage|localStorage)\b\.", MODULES["client.js"])
        == []
    )


def test_types_of_the_client():
    """client.d.ts declares what client.js exports, and the public methods and fields of its class."""
    exported = re.compile(r"^export (?:const|function|class) (\w+)", re.MULTILINE)
    code, types = MODULES["client.js"], STATIC_FILES["client.d.ts"]
    assert sorted(exported.findall(code)) == sorted(exported.findall(types))
    (body,) = re.findall(r"^export class LogRelayClient \{\n(.*?)^\}", code, re.MULTILINE | re.DOTALL)
    (declared,) = re.findall(r"^export class LogRelayClient \{\n(.*?)^\}", types, re.MULTILINE | re.DOTALL)
    methods = re.compile(r"^  (\w+)\(", re.MULTILINE)
    assert sorted(methods.findall(body)) == sorted(methods.findall(declared))
    fields = set(re.findall(r"^    this\.(\w+) = ", body, re.MULTILINE))
    assert fields == set(re.findall(r"^  (?:readonly )?(\w+): ", declared, re.MULTILINE))


def test_charters():
    """Each module opens with what it owns and must not know, and the trail from the client visits all of them once."""
    openings = {name: re.sub(r"\s*\n \* ?", " ", OPENING.match(text).group(1)) for name, text in MODULES.items()}
    assert [name for name, words in openings.items() if not re.search(r"Owns: .+ must not know ", words)] == []
    trail, left = ["client.js"], dict(openings)
    while following := NEXT.findall(left.pop(trail[-1])):
        trail += following
        assert trail[-1] in left, f"{trail} comes back or leaves"
    assert left == {}


def test_the_package_is_of_this_version():
    """The package for npm is the client that is served, and has the version of the relay it was made for."""
    package = json.loads((Path(__file__).parents[2] / "package.json").read_text("utf-8"))

    assert package["version"] == __version__
    assert package["main"] == package["exports"]["."]["default"] == "./logrelay/static/client.js"
    assert package["types"] == package["exports"]["."]["types"] == "./logrelay/static/client.d.ts"


def test_weight(api):
    """What a browser gets for the page, in the form that it gets it, stays within what a phone loads at once."""
    loaded = [path for path in STATIC if not path.endswith(".d.ts")]
    sizes = {path: len(api.answer("GET", path, {"accept-encoding": "gzip, deflate, br"}).body) for path in loaded}
    assert sum(sizes.values()) <= MAX_BYTES, sizes


def test_the_page_asks_nobody_else():
    """No file of the page names another host, but for the namespace of the icon, which nothing fetches."""
    named = {name: re.findall(r"https?://[^\s\"'<>)]+", text) for name, text in STATIC_FILES.items()}
    assert {name: found for name, found in named.items() if found} == {"icon.svg": ["http://www.w3.org/2000/svg"]}


@pytest.mark.parametrize("size", [180, 192, 512])
def test_icons(size):
    """An icon is a PNG of the size that its name says: phones do not take the SVG."""
    content = files("logrelay").joinpath("static", f"icon-{size}.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (size, size)
