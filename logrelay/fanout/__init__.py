"""Lines on their way out: which viewer gets which bytes. Read `fanout/hub` next."""
