"""The study: the paper's claims on a small world."""
