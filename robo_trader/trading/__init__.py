"""The paper trader itself. Read `engine` next."""
