"""Measurements over arrays: the domain gap and retrieval. Knows no model and no file format."""
