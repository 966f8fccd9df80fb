"""Relays of many machines, joined by a NATS JetStream stream. Read `stream_batch` next."""
