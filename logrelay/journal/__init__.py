"""What keeps the lines: one interface, two journals, one thread that writes. Read `journal/writer_thread` next."""
