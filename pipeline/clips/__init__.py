"""The stage `clipvip-data clips`."""
