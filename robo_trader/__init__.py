"""A small, real paper trader, which shows what logrelay does. Read `logger` next for how it logs, `trading` for what.

`python -m robo_trader` runs it.
"""
