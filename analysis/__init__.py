"""Measurements over arrays: the domain gap and retrieval. Knows no model and no file format."""

# Not loaded on use, as elsewhere: a module has the name of its function, and who imports the module first would find
# that in the place of the function.
from clipvip.analysis.domain_gap import domain_gap
from clipvip.analysis.retrieval import retrieval_metrics

__all__ = ["domain_gap", "retrieval_metrics"]
