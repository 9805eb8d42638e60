"""Parts that the networks share: stochastic depth, and the memory layout of kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Leaves out the branch of whole samples f[N,...] of four axes."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        is_kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) < keep
        return x * (is_kept / keep)


def use_layout(model: nn.Module, layout: str) -> None:
    """Puts 2-D kernels in `contiguous` or `channels_last` order, which the maps follow.

    `model.to(memory_format=...)` would refuse kernels of five axes.
    """
    if layout == "channels_last":
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.to(memory_format=torch.channels_last)
