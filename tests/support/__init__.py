"""What tests share: fixtures, peers, and how to wait. Imported by its name, `tests.support`."""
