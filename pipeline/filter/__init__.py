"""The stage `clipvip-data filter`."""
