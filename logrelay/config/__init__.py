"""Every setting, and how it is read. Read `config/settings` next."""
