"""Who may read the log: tokens, their file, their use, and those who guess. Read `access/tokens` next."""
