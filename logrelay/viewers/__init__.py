"""The viewers' connections and sessions. Read `viewers/server` next."""
