"""Files and stores: whole or not at all, locks, text, hashes, indexes on the disk."""
