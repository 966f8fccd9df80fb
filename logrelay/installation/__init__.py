"""Installing the relay as a service of systemd: what is to be done, and doing it. Read `installation/plan` next."""
