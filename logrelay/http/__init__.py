"""Plain HTTP on the viewers' port. Read `http/api` next."""
