"""Print the lowest version of every dependency that the given pyproject.toml files allow, as constraints for pip.

Reads `dependencies` and the extras `bot`, `nats` and `alerts`: what testing needs is not part of what is promised.
Where two files name the same package the higher bound holds, since one environment has to satisfy both.
"""

import re
import sys
import tomllib
from pathlib import Path

BOUND = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?\s*>=\s*([0-9.]+)\s*(?:;|$)")
"""A name and its lower bound; the condition behind `;` does not matter to a constraint."""


def main() -> None:
    """Read the files, print one `name==version` per line; a dependency without a lower bound is an error."""
    lowest: dict[str, tuple[int, ...]] = {}
    for file in sys.argv[1:]:
        project = tomllib.loads(Path(file).read_text("utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        optional = [requirement for extra in ("bot", "nats", "alerts") for requirement in extras.get(extra, [])]
        for requirement in [*project["dependencies"], *optional]:
            match = BOUND.match(requirement)
            if match is None:
                sys.exit(f"{file}: {requirement!r} is not of the form name>=version")
            version = tuple(map(int, match[2].split(".")))
            lowest[match[1]] = max(version, lowest.get(match[1], version))
    for name, version in sorted(lowest.items()):
        print(f"{name}=={'.'.join(map(str, version))}")


if __name__ == "__main__":
    main()
