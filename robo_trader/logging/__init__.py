"""What happens to a log call before it is shipped. Read `bound_logger` next."""
