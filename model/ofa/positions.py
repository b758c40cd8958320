"""Where tokens and image cells are, as OFA counts it: position ids and buckets of relative position."""

import math

import torch
from torch import Tensor

# The span of the logarithmic buckets is this constant, whatever the configuration says.
_MAX_TOKEN_DISTANCE = 1024


def token_buckets(num_queries: int, num_keys: int, bucket_size: int, *, device: torch.device) -> Tensor:
    """Buckets of i - j for the last `num_queries` of `num_keys` positions: int64 (num_queries, num_keys).

    Distances below half the bucket size have a bucket each, larger ones share logarithmic ones. Of 256, the
    distances -1, 0, 1 and 127 are in 254, 255, 256 and 382; 200, 500 and 1000 in 411, 467 and 509.
    """
    query = torch.arange(num_keys - num_queries, num_keys, device=device)
    distance = query[:, None] - torch.arange(num_keys, device=device)[None, :]
    middle = bucket_size // 2
    size = distance.abs().clamp(min=middle - 1)
    logarithmic = torch.ceil(
        torch.log(size / middle) / math.log((_MAX_TOKEN_DISTANCE - 1) / middle) * (middle - 1)
    )
    far = (logarithmic + middle).long() * distance.sign()
    return torch.where(size <= middle, distance, far) + bucket_size - 1


def image_position_ids(rows: int, columns: int, bucket_size: int, *, device: torch.device) -> Tensor:
    """Ids of a grid's cells in reading order: int64 (rows * columns,) from 1; ValueError if too large."""
    if rows > bucket_size or columns > bucket_size:
        raise ValueError(
            f"an image grid of {rows} x {columns} cells is more than the model's {bucket_size} x "
            f"{bucket_size}: images may have {16 * bucket_size} pixels a side at most"
        )
    row = torch.arange(rows, device=device)[:, None]
    return (row * bucket_size + torch.arange(columns, device=device) + 1).flatten()


def image_buckets(rows: int, columns: int, bucket_size: int, *, device: torch.device) -> Tensor:
    """Buckets of the relative position of any two cells: int64 (rows * columns, rows * columns)."""
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    down = row[:, None] - row[None, :] + bucket_size - 1
    right = column[:, None] - column[None, :] + bucket_size - 1
    return down * (2 * bucket_size - 1) + right
