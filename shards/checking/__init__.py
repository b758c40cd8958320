"""Check shards, folders and the notes beside them; every finding is one value."""
