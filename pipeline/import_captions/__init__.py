"""The stage `clipvip-data import-captions`."""
