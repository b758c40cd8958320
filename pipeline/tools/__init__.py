"""Tools for folders of shards: inspect, count, check, merge, split, subset, convert."""
