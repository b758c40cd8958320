"""The stage `clipvip-data nmi`."""
