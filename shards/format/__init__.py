"""What stands in a folder of shards: a clip, its record, the manifest, captions."""
