"""The stage `clipvip-train`."""
