"""Lines on their way in: the traders' socket, frames, runs and places. Read `server` next."""
