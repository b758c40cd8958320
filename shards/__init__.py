"""The on-disk format of clips: reading, writing, decoding. Knows no network, terminal or command."""
