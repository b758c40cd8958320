"""The stage `clipvip-eval search`."""
