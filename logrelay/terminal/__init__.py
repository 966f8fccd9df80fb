"""Reading the log from a terminal: from a running relay, or from the journal's file. Read `terminal/selection` next."""
