"""The stage `clipvip-data download`."""
