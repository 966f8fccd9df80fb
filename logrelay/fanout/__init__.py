"""Lines on their way out: which viewer gets which bytes. Read `hub` next."""
