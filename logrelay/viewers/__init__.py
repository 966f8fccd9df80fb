"""The viewers' connections and sessions. Read `server` next."""
