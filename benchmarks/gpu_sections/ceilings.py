"""What the device can do at most: against these the other sections' figures are read."""

import torch

from gpu_sections.rows import Check


def ceilings(check: Check) -> None:
    """A bf16 matrix product, a copy within the device, and copies to it from the host, pinned and not."""
    size = 256 if check.tiny else 8192
    a, b = (torch.randn(size, size, device=check.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = check.seconds(lambda: a @ b, times=10, warm_up=3)
    check.row(f"bf16 product, {size} cubed", tflop_per_s=2 * size**3 / seconds / 1e12)
    num_bytes = 2**20 if check.tiny else 2**31
    source = torch.randint(0, 255, (num_bytes,), device=check.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = check.seconds(lambda: target.copy_(source), times=10, warm_up=3)
    check.row("copy within the device, read and written", gb_per_s=2 * num_bytes / seconds / 1e9)
    host = torch.zeros(num_bytes // 4, dtype=torch.uint8)
    for name, memory in {"pageable": host, "pinned": host.pin_memory() if check.on_gpu else host}.items():
        into = target[: len(memory)]
        seconds = check.seconds(lambda: into.copy_(memory, non_blocking=True))  # noqa: B023
        check.row(f"copy from {name} memory", gb_per_s=len(memory) / seconds / 1e9)
