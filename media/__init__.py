"""Decode video, encode frames, and choose which of them are seen. Knows no shards and no networks."""
