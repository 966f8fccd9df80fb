"""Plain HTTP on the viewers' port. Read `api` next."""
