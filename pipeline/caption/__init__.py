"""The stage `clipvip-data caption`."""
