"""The sampler of frames under the name that training code outside imports; it stands in
`clipvip.media.sampling`."""

from clipvip.media.sampling import jittered_indices, middle_index, uniform_indices

__all__ = ["jittered_indices", "middle_index", "uniform_indices"]
