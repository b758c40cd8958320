"""The sampler of `clipvip.media.sampling` under the name that training code outside imports."""

from clipvip.media.sampling import jittered_indices, middle_index, uniform_indices

__all__ = ["jittered_indices", "middle_index", "uniform_indices"]
