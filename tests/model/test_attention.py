"""Proxy-guided attention in two dense pieces is attention under the mask of Eq. 2."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.model.attention import attend, proxy_guided_attention, proxy_guided_mask


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    num_proxies=st.integers(1, 5),
    num_frames=st.integers(1, 6),
    num_patches=st.integers(1, 7),
    width=st.sampled_from([1, 3, 8]),
    scale=st.sampled_from([None, 0.3]),
)
def test_equals_masked_dense_attention(
    batch: int,
    heads: int,
    num_proxies: int,
    num_frames: int,
    num_patches: int,
    width: int,
    scale: float | None,
) -> None:
    torch.manual_seed(num_frames * 100 + num_patches)
    length = num_proxies + num_frames * num_patches
    shape = (batch, length, heads, width)
    ours = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    dense = [tensor.detach().clone().requires_grad_() for tensor in ours]
    mask = proxy_guided_mask(num_proxies, num_frames, num_patches)
    found = proxy_guided_attention(*ours, num_proxies=num_proxies, num_frames=num_frames, scale=scale)
    expected = attend(*dense, mask=mask, scale=scale)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)

    outwards = torch.randn(shape, dtype=torch.float64)
    (found * outwards).sum().backward()
    (expected * outwards).sum().backward()
    for leaf, dense_leaf in zip(ours, dense, strict=True):
        torch.testing.assert_close(leaf.grad, dense_leaf.grad, rtol=1e-9, atol=1e-11)


def test_the_mask_is_equation_2() -> None:
    proxies, frames, patches = 2, 3, 4
    mask = proxy_guided_mask(proxies, frames, patches)
    for query in range(proxies + frames * patches):
        for key in range(proxies + frames * patches):
            either_is_proxy = query < proxies or key < proxies
            same_frame = (query - proxies) // patches == (key - proxies) // patches
            assert mask[query, key] == (either_is_proxy or same_frame)


def test_an_image_is_under_full_attention() -> None:
    query, key, value = torch.randn(3, 2, 9, 2, 4).unbind()
    found = proxy_guided_attention(query, key, value, num_proxies=4, num_frames=1)
    torch.testing.assert_close(found, attend(query, key, value))


@pytest.mark.parametrize("joined", [False, True])
def test_layout_in_memory_does_not_matter(joined: bool) -> None:
    """Queries, keys and values are parts of one product, or of three."""
    x = torch.randn(2, 14, 3, 3, 4)
    query, key, value = x.unbind(2) if joined else x.movedim(2, 0).contiguous().unbind()
    found = proxy_guided_attention(query, key, value, num_proxies=2, num_frames=4)
    expected = attend(query, key, value, mask=proxy_guided_mask(2, 4, 3))
    torch.testing.assert_close(found, expected)
