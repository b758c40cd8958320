"""Tar files of samples: index, read, write and copy them."""
