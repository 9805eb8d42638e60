"""The spatio-temporal unit of TSFmicro and GAMDSS in PyTorch, named as `mexjax.to_torch` names it.

Maps are f32[N,H,W,C] between the blocks, as in the released code, and turned for convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from torch_peer.layers import DropPath


class DepthwiseConv(nn.Module):
    """A convolution of each channel of f[N,H,W,C] by itself."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Retention(nn.Module):
    """Attention over the pixels of a map with a decay over their distance."""

    def __init__(self, c: Mapping[str, Any], stage: int) -> None:
        super().__init__()
        width, self.heads = c["channels"][stage], c["num_heads"][stage]
        self.head_dim = width // self.heads
        self.is_decomposed = c["is_decomposed"][stage]
        share = torch.arange(self.heads, dtype=torch.float64) / self.heads
        exponent = c["decay_start"][stage] + c["decay_span"][stage] * share
        self.log_decay = torch.log1p(-(2.0**-exponent))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)
        self.lepe = DepthwiseConv(width, 5)
        self.tables: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}

    def _tables(self, height: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
        """Sine and cosine f32[H,W,1,d], and the decays of rows and columns or of all pairs."""
        key = (height, width, device)
        if key in self.tables:
            return self.tables[key]
        steps = torch.linspace(0, 1, self.head_dim // 2, dtype=torch.float64)
        frequency = (10000.0**-steps).repeat_interleave(2)
        place = torch.arange(height * width, dtype=torch.float64).reshape(height, width, 1, 1)

        def decay(*axes: Tensor) -> Tensor:
            distance = sum((a[:, None] - a).abs() for a in axes)
            return self.log_decay[:, None, None] * distance

        rows, columns = torch.arange(height), torch.arange(width)
        if self.is_decomposed:
            decays = (decay(columns), decay(rows))
        else:
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            decays = (decay(y.flatten(), x.flatten()),)
        tables = ((place * frequency).sin(), (place * frequency).cos(), *decays)
        self.tables[key] = tuple(table.float().to(device) for table in tables)
        return self.tables[key]

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        sin, cos, *decays = self._tables(height, width, x.device)
        q, k, v = self.q_proj(x), self.k_proj(x) * self.head_dim**-0.5, self.v_proj(x)
        lepe = self.lepe(v)
        q, k, v = (a.reshape(n, height, width, self.heads, self.head_dim) for a in (q, k, v))
        q, k = _rotated(q, sin, cos), _rotated(k, sin, cos)
        if self.is_decomposed:
            along_rows = [a.flatten(0, 1).transpose(1, 2) for a in (q, k, v)]
            v = _attend(*along_rows, decays[0]).transpose(1, 2).unflatten(0, (n, height))
            along_columns = [a.transpose(1, 2).flatten(0, 1).transpose(1, 2) for a in (q, k, v)]
            y = _attend(*along_columns, decays[1]).transpose(1, 2).unflatten(0, (n, width))
            y = y.transpose(1, 2)
        else:
            y = _attend(*(a.flatten(1, 2).transpose(1, 2) for a in (q, k, v)), decays[0])
            y = y.transpose(1, 2)
        return self.out_proj(y.reshape(n, height, width, channels) + lepe)


def _rotated(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * cos + turned * sin


def _attend(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """Attention of q, k, v f[N,heads,L,d], with `decay` added to the scores."""
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=decay[None], scale=1.0)


class FeedForward(nn.Module):
    """Two linear layers, a depthwise convolution added between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dwconv = DepthwiseConv(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.fc1(x))
        return self.fc2(x + self.dwconv(x))


class RetentionBlock(nn.Module):
    """Position code, retention and feed-forward, each with a residual."""

    def __init__(self, c: Mapping[str, Any], stage: int, rate: float) -> None:
        super().__init__()
        width, scale = c["channels"][stage], c["layer_scale"][stage]
        self.pos = DepthwiseConv(width, 3)
        self.retention_layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.retention = Retention(c, stage)
        self.final_layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.ffn = FeedForward(width, c["ffn_ratio"][stage] * width)
        self.drop_path = DropPath(rate)
        self.is_scaled = scale > 0
        if self.is_scaled:
            self.gamma_1 = nn.Parameter(torch.full((width,), scale))
            self.gamma_2 = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos(x)
        y = self.retention(self.retention_layer_norm(x))
        x = x + self.drop_path(self.gamma_1 * y if self.is_scaled else y)
        y = self.ffn(self.final_layer_norm(x))
        return x + self.drop_path(self.gamma_2 * y if self.is_scaled else y)


class Downsample(nn.Module):
    """A convolution of stride 2 and a batch norm, on f[N,H,W,C]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


class Stage(nn.Module):
    """Blocks of one size, and the layer that leads to the next size."""

    def __init__(self, c: Mapping[str, Any], stage: int, rates: list[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(RetentionBlock(c, stage, rate) for rate in rates))
        widths = c["channels"][stage : stage + 2]
        self.downsample = Downsample(*widths) if len(widths) == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(x))


class ConvStem(nn.Module):
    """Convolutions with batch norm: f[N,I,H,W] -> f[N,h,w,O]."""

    def __init__(self, c: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for width, stride in zip(c["stem_channels"], c["stem_strides"], strict=True):
            conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
            steps += [conv, nn.BatchNorm2d(width), nn.GELU()]
            channels = width
        self.proj = nn.Sequential(*steps[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


def add_head(module: nn.Module, c: Mapping[str, Any], num_classes: int) -> None:
    """Adds `proj`, `norm`, `head` to `module`: released classes have them in different places."""
    module.proj = nn.Linear(c["channels"][-1], c["head_width"])
    module.norm = nn.BatchNorm2d(c["head_width"])
    module.head = nn.Linear(c["head_width"], num_classes)


def run_head(module: nn.Module, x: Tensor) -> Tensor:
    """Runs the layers of `add_head`, with swish and mean: f[N,h,w,C] -> f[N,K]."""
    x = functional.silu(module.norm(module.proj(x).permute(0, 3, 1, 2)))
    return module.head(x.mean((2, 3)))


class Backbone(nn.Module):
    """Stem, stages and head of the temporal branch, each of which a network may leave out."""

    def __init__(
        self, c: Mapping[str, Any], *, channels: int, num_classes: int, has_stem: bool = True,
        has_head: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if has_stem:
            self.patch_embed = ConvStem(c, channels)
        rates = np.linspace(0.0, c["drop_path_rate"], sum(c["depths"])).tolist()
        stages = []
        for i, depth in enumerate(c["depths"]):
            stages.append(Stage(c, i, rates[:depth]))
            rates = rates[depth:]
        self.layers = nn.Sequential(*stages)
        if has_head:
            add_head(self, c, num_classes)


class VitAttention(nn.Module):
    """Self-attention of tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, width // self.heads)
        y = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return self.proj(y.transpose(1, 2).reshape(n, length, width))


class VitMlp(nn.Module):
    """Two linear layers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class VitBlock(nn.Module):
    """Attention and MLP, each with a residual."""

    def __init__(self, c: Mapping[str, Any], width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = VitAttention(width, c["vit_heads"])
        self.mlp = VitMlp(width, c["vit_mlp_ratio"] * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """A convolution of one pixel."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class PositionViT(nn.Module):
    """A frame f[N,I,H,W], shrunk, through a transformer of its pixels: f[N,S,S,width]."""

    def __init__(self, c: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        width, self.size = c["channels"][-1], c["map_size_px"]
        self.is_antialiased = c["resize"] == "bilinear_antialias"
        self.patch_embed = PatchEmbed(channels, width)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, self.size**2, width))
        self.blocks = nn.ModuleList(VitBlock(c, width) for _ in range(c["vit_depth"]))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, added: Tensor | None = None, added_at: str = "") -> Tensor:
        """`added` f[N,S,S,width] joins the tokens `before_blocks` or `before_norm`."""
        size = (self.size, self.size)
        x = functional.interpolate(
            x, size, mode="bilinear", align_corners=False, antialias=self.is_antialiased
        )
        x = self.patch_embed(x) + self.pos_embed
        if added_at == "before_blocks":
            x = x + added.flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        if added_at == "before_norm":
            x = x + added.flatten(1, 2)
        return self.norm(x).unflatten(1, size)


def initialise(model: nn.Module) -> None:
    """Draws linear layers by a normal of 0.02 with zero biases; convolutions stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
            nn.init.zeros_(module.bias)


def no_target(frames: Tensor) -> Tensor:
    """The empty target f32[B,0]: these networks are asked for the class alone."""
    return frames.new_empty(len(frames), 0)
