"""Measurements over arrays: the domain gap and retrieval. Knows no model and no file format."""

# Not loaded on use, as elsewhere: who imports the module `domain_gap` first would find that, not the
# function.
from clipvip.analysis.domain_gap import domain_gap
from clipvip.analysis.retrieval import retrieval_metrics

__all__ = ["domain_gap", "retrieval_metrics"]
