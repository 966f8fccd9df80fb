"""`logrelay send` without its command: what is sent, as which bytes, over which socket. Read `send/given` next."""
