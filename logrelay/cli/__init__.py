"""The command line: the group and its commands. Read `cli/group` next."""

from logrelay.cli.group import main

__all__ = ["main"]
