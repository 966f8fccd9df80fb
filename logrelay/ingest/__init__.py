"""Lines on their way in: the traders' server and connections, frames, runs and seqs. Read `ingest/server` next."""
