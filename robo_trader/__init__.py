"""A small, real paper trader: the stage on which logrelay is shown. Read `runner` next."""
