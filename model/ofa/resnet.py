"""OFA's image tower: the first three stages of a ResNet v1.5 (the stride is on the 3x3 convolution)."""

import torch.nn.functional as F
from torch import Tensor, nn

from clipvip.model.ofa.config import RESNET_BLOCKS, OfaConfig


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a residual; four times as many channels out as inside."""

    def __init__(self, channels_in: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, 4 * channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(4 * channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(x))
        return F.relu(x + residual, inplace=True)


class ResNet(nn.Module):
    """(batch, 3, height, width) to (batch, 16 * resnet_width, height / 16, width / 16)."""

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        width = config.resnet_width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = config.resnet_blocks or RESNET_BLOCKS[config.resnet_type]
        self.layer1 = _stage(width, width, blocks[0], stride=1)
        self.layer2 = _stage(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, blocks[2], stride=2)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        features: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return features


def _stage(channels_in: int, channels: int, num_blocks: int, *, stride: int) -> nn.Sequential:
    first = Bottleneck(channels_in, channels, stride=stride)
    return nn.Sequential(
        first, *(Bottleneck(4 * channels, channels, stride=1) for _ in range(num_blocks - 1))
    )
