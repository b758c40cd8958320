"""The stage `clipvip-data shard`."""
