"""What happens to a log call before it is shipped. Read `chain` next."""
