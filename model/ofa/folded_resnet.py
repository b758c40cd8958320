"""OFA's image tower for inference: BatchNorm folded into the convolutions, channels last."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipvip.model.ofa.resnet import Bottleneck, ResNet


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Make `conv` give what `norm` in evaluation makes of its output; returns it.

    The factors are computed in float64, and the weights are changed in place: copies would need memory.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    weight = conv.weight.data
    factor = norm.weight.data.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight *= factor[:, None, None, None]
    bias = norm.bias.data.double() - norm.running_mean.double() * factor
    conv.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
    return conv


class FoldedBottleneck(nn.Module):
    """A `Bottleneck` of convolutions alone."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = fold_batch_norm(block.conv1, block.bn1)
        self.conv2 = fold_batch_norm(block.conv2, block.bn2)
        self.conv3 = fold_batch_norm(block.conv3, block.bn3)
        self.shortcut: nn.Conv2d | None = None
        if block.downsample is not None:
            conv, norm = block.downsample.children()
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            self.shortcut = fold_batch_norm(conv, norm)

    def forward(self, x: Tensor, *, fused: bool = False) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        x = convolve(x, self.conv1, fused=fused)
        x = convolve(x, self.conv2, fused=fused)
        return convolve(x, self.conv3, residual, fused=fused)


class FoldedResNet(nn.Module):
    """What `ResNet` in evaluation computes, of which the convolutions are taken over.

    `forward` takes images whose channels may come last in memory.

    `fused`: cuDNN adds the bias and the residual and cuts off negatives as it writes a convolution's output.
    """

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.conv1 = fold_batch_norm(resnet.conv1, resnet.bn1)
        stages = (resnet.layer1, resnet.layer2, resnet.layer3)
        blocks = [block for stage in stages for block in stage.children() if isinstance(block, Bottleneck)]
        self.blocks = nn.ModuleList(FoldedBottleneck(block) for block in blocks)
        self.fused = False

    def forward(self, images: Tensor) -> Tensor:
        # Three channels are too few for cuDNN's fused kernels.
        x = convolve(images, self.conv1, fused=False)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x, fused=self.fused)
        return x

    @torch.inference_mode()
    def try_fused(self, images: Tensor) -> bool:
        """Turn `fused` on where cuDNN has kernels for it and they agree with the plain way on `images`."""
        if images.device.type != "cuda" or not torch.backends.cudnn.is_available():
            return False
        self.fused = False
        plain = self(images)
        try:
            self.fused = True
            found = self(images)
            error, size = (found - plain).float().norm(), plain.float().norm()
            self.fused = bool(error <= 0.05 * size)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:  # cuDNN has no engine for this format on this device
            self.fused = False
        return self.fused


def convolve(x: Tensor, conv: nn.Conv2d, residual: Tensor | None = None, *, fused: bool) -> Tensor:
    """max(conv(x) + residual, 0)."""
    if fused:
        stride, padding, dilation = conv.stride, cast(tuple[int, ...], conv.padding), conv.dilation
        if residual is None:
            return torch.cudnn_convolution_relu(
                x, conv.weight, conv.bias, stride, padding, dilation, conv.groups
            )
        return torch.cudnn_convolution_add_relu(
            x, conv.weight, residual, 1.0, conv.bias, stride, padding, dilation, conv.groups
        )
    out: Tensor = conv(x)
    if residual is not None:
        out += residual
    return out.relu_()
