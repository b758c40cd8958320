"""Measurements over arrays: the domain gap and retrieval. Knows no model and no file format."""

# Not loaded on use, as elsewhere: who imports the module `domain_gap` first would find that, not the
# function.
from clipvip.analysis.bootstrap import mean_interval, rank_intervals
from clipvip.analysis.classification import choose_option, class_scores
from clipvip.analysis.domain_gap import DomainGap, cluster_agreement, domain_gap, draw_samples
from clipvip.analysis.rescoring import dual_softmax, querybank_norm
from clipvip.analysis.retrieval import Ranks, embedding_ranks, retrieval_metrics, similarity_ranks

__all__ = [
    "DomainGap",
    "Ranks",
    "choose_option",
    "class_scores",
    "cluster_agreement",
    "domain_gap",
    "draw_samples",
    "dual_softmax",
    "embedding_ranks",
    "mean_interval",
    "querybank_norm",
    "rank_intervals",
    "retrieval_metrics",
    "similarity_ranks",
]

# `import clipvip.analysis.domain_gap as gap` gives the function too: what the module offers is found on it.
for _offered in (DomainGap, cluster_agreement, domain_gap, draw_samples):
    setattr(domain_gap, _offered.__name__, _offered)
