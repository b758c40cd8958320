"""The demo: every stage on a small world."""
