"""What keeps the lines: one interface, two journals, one thread that writes. Read `interface` next."""
