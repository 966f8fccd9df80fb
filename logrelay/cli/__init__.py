"""The command line: the group and its commands. Read `group` next."""

from logrelay.cli.group import main

__all__ = ["main"]
