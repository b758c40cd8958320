"""What a GPU would have to do, counted without one: kernels, bytes, FLOPs and an expected time.

- `autocast`: torch's autocast of a GPU, with its own rules, for meta tensors.
- `recorder`: which operations a block of code starts; what they read, write and compute.
- `fusion`: the same operations, with chains of pointwise operations and reductions as one kernel each.
- `report`: sums, the expected time on a device of `devices`, and how they are told.
- `training`: the workload, a training step's encoders.

What follows is a model: an operation takes the longest of its products at the device's rate, its bytes at
the bandwidth, and the start of a kernel, and nothing overlaps. Trust ratios before digits.
"""
