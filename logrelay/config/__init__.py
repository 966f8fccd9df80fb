"""Every setting, and how it is read. Read `settings` next."""
