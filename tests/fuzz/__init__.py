"""Random inputs for both listeners, and what has to hold whatever they are. Read `cases` first, then `__main__`."""
