"""Tar files of samples: index, read and write them."""
