"""FDP in PyTorch: the network that `benchmarks/step_time.py` measures against.

Modules are named as `mexjax.to_torch` names them, so that both sides can be given the same
weights and their losses compared before their times are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mexjax.nn.next_vit import round_channels
from mexjax.nn.segnet import SEGNET_CHANNELS
from mexjax.ops.rank_pooling import rank_pooling_weights
from torch_peer.layers import DropPath


def _conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    options = {"bias": False, "padding": kernel // 2} | options
    return nn.Conv2d(inputs, outputs, kernel, **options)


class ConvNormRelu(nn.Module):
    """A step of the stem."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = _conv(inputs, outputs, stride=stride)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)), inplace=True)


class PatchEmbed(nn.Module):
    """2x2 mean where the stride is 2, 1x1 convolution, batch norm; or the identity."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.is_identity = stride == 1 and inputs == outputs
        if not self.is_identity:
            self.conv = _conv(inputs, outputs, 1)
            self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_identity:
            return x
        x = functional.avg_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x
        return self.norm(self.conv(x))


class LocalConv(nn.Module):
    """The 3x3 convolution in its three forms."""

    def __init__(self, width: int, kind: str, head_dim: int) -> None:
        super().__init__()
        groups = width // head_dim if kind == "multi_head" else 1
        self.group_conv3x3 = _conv(width, width, groups=groups)
        self.is_plain = kind == "dense"
        if not self.is_plain:
            self.norm = nn.BatchNorm2d(width)
            self.projection = _conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.group_conv3x3(x)
        return x if self.is_plain else self.projection(functional.relu(self.norm(x), inplace=True))


class Mlp(nn.Module):
    """Two 1x1 convolutions."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(functional.relu(self.conv1(x), inplace=True))


class LocalAggregator(nn.Module):
    """Convolution and MLP, each with a residual."""

    def __init__(self, c: Mapping, inputs: int, width: int, stride: int, rate: float) -> None:
        super().__init__()
        hidden = round_channels(width * c["local_mlp_ratio"], c["channel_divisor"])
        self.patch_embed = PatchEmbed(inputs, width, stride)
        self.mhca = LocalConv(width, c["local_conv"], c["head_dim"])
        self.norm, self.mlp, self.drop = nn.BatchNorm2d(width), Mlp(width, hidden), DropPath(rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.drop(self.mhca(x))
        return x + self.drop(self.mlp(self.norm(x)))


class Attention(nn.Module):
    """Self-attention with keys and values averaged along the raster."""

    def __init__(self, width: int, head_dim: int, reduction: int) -> None:
        super().__init__()
        self.head_dim, self.window = head_dim, reduction**2
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        keys = tokens
        if self.window > 1:
            keys = self.norm(functional.avg_pool1d(tokens.transpose(1, 2), self.window))
            keys = keys.transpose(1, 2)
        q, k, v = (
            a.reshape(n, -1, c // self.head_dim, self.head_dim).transpose(1, 2)
            for a in (self.q(tokens), self.k(keys), self.v(keys))
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        y = self.proj(y.transpose(1, 2).reshape(n, height * width, c))
        return y.transpose(1, 2).reshape(n, c, height, width)


class GlobalAggregator(nn.Module):
    """Attention on a share of the channels, a convolution on the rest, an MLP on both."""

    def __init__(
        self, c: Mapping, inputs: int, width: int, stride: int, rate: float, reduction: int
    ) -> None:
        super().__init__()
        share, divisor = c["global_attention_share"], c["channel_divisor"]
        wide = round_channels(width * share, divisor)
        narrow = width - wide
        hidden = round_channels(width * c["global_mlp_ratio"], divisor)
        self.patch_embed = PatchEmbed(inputs, wide, stride)
        self.norm1, self.norm2 = nn.BatchNorm2d(wide), nn.BatchNorm2d(width)
        self.e_mhsa = Attention(wide, c["head_dim"], reduction)
        self.projection = PatchEmbed(wide, narrow, 1)
        self.mhca = LocalConv(narrow, c["local_conv"], c["head_dim"])
        self.mlp = Mlp(width, hidden)
        self.drop_wide, self.drop_narrow = DropPath(rate * share), DropPath(rate * (1 - share))
        self.drop = DropPath(rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.drop_wide(self.e_mhsa(self.norm1(x)))
        y = self.projection(x)
        y = y + self.drop_narrow(self.mhca(y))
        x = torch.cat([x, y], 1)
        return x + self.drop(self.mlp(self.norm2(x)))


class FrameNetwork(nn.Module):
    """A network that maps frames to features."""

    def __init__(self, c: Mapping[str, Any], channels: int, image_size: int) -> None:
        super().__init__()
        self.patch = c["stem_patch_px"]
        width, size = channels * self.patch**2, image_size // self.patch
        steps = []
        for outputs, stride in zip(c["stem_channels"], c["stem_strides"], strict=True):
            steps.append(ConvNormRelu(width, outputs, stride))
            width, size = outputs, -(-size // stride)
        self.stem = nn.Sequential(*steps)
        blocks: list[nn.Module] = []
        for block, outputs, stride in _blocks(c, width):
            blocks.append(block)
            width, size = outputs, -(-size // stride)
        self.features = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)
        self.is_pooled = c["frame_head"] == "gap"
        inputs = width if self.is_pooled else width * size * size
        self.proj_head = nn.Sequential(nn.Linear(inputs, c["map_size_px"] ** 2))

    def forward(self, x: Tensor) -> Tensor:
        if self.patch > 1:
            x = functional.pixel_unshuffle(x, self.patch)
        x = self.norm(self.features(self.stem(x)))
        # Places come before channels: a network that keeps channels last flattens a map like this.
        x = x.mean((2, 3)) if self.is_pooled else x.permute(0, 2, 3, 1).flatten(1)
        return self.proj_head(x)


def _blocks(c: Mapping[str, Any], width: int) -> Iterator[tuple[nn.Module, int, int]]:
    """Every aggregator in order with its width and stride."""
    rates = iter(np.linspace(0.0, c["drop_path_rate"], sum(c["num_local"] + c["num_global"])))
    for stage, stride in enumerate(c["stage_strides"]):
        kinds = ["local"] * c["num_local"][stage] + ["global"] * c["num_global"][stage]
        for i, kind in enumerate(kinds):
            outputs, step = c[f"{kind}_channels"][stage], stride if i == 0 else 1
            arguments = (c, width, outputs, step, float(next(rates)))
            if kind == "local":
                yield LocalAggregator(*arguments), outputs, step
            else:
                reduction = c["spatial_reduction"][stage]
                yield GlobalAggregator(*arguments, reduction), outputs, step
            width = outputs


class SegNet(nn.Module):
    """Five stages down and five up, with remembered maxima."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.down, self.up = [], []
        width = inputs

        def add(tag: str, outputs: int) -> str:
            nonlocal width
            setattr(self, f"conv{tag}", _conv(width, outputs, bias=True))
            if tag != "11d":
                setattr(self, f"bn{tag}", nn.BatchNorm2d(outputs))
            width = outputs
            return tag

        for i, channels in enumerate(SEGNET_CHANNELS, 1):
            self.down.append([add(f"{i}{j}", n) for j, n in enumerate(channels, 1)])
        for i in range(len(SEGNET_CHANNELS), 0, -1):
            channels = SEGNET_CHANNELS[i - 1]
            last = SEGNET_CHANNELS[i - 2][-1] if i > 1 else 1
            widths = [*channels[:0:-1], last]
            tags = range(len(channels), 0, -1)
            self.up.append([add(f"{i}{j}d", n) for j, n in zip(tags, widths, strict=True)])

    def _step(self, x: Tensor, tag: str) -> Tensor:
        x = getattr(self, f"conv{tag}")(x)
        return x if tag == "11d" else functional.relu(getattr(self, f"bn{tag}")(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        places = []
        for tags in self.down:
            for tag in tags:
                x = self._step(x, tag)
            x, place = functional.max_pool2d(x, 2, return_indices=True)
            places.append(place)
        for tags in self.up:
            x = functional.max_unpool2d(x, places.pop(), 2)
            for tag in tags:
                x = self._step(x, tag)
        return x


class EncoderDecoder(nn.Module):
    """Encoder and decoder with added skips."""

    def __init__(self, c: Mapping[str, Any]) -> None:
        super().__init__()
        self.slope = c["leaky_slope"]
        self.counts = len(c["encoder_channels"]), len(c["decoder_channels"])
        width = c["volume_channels"]
        for i, outputs in enumerate(c["encoder_channels"]):
            self._add(f"encoder_{i}", width, outputs)
            width = outputs
        skips = list(c["encoder_channels"])
        for i, outputs in enumerate(c["decoder_channels"]):
            skip = skips.pop()
            setattr(self, f"decoder_{i}_deconv", nn.ConvTranspose2d(width, skip, 2, 2))
            self._add(f"decoder_{i}", skip, outputs)
            width = outputs
        self.out_conv = _conv(width, 1, bias=True)

    def _add(self, tag: str, inputs: int, outputs: int) -> None:
        setattr(self, f"{tag}_conv", _conv(inputs, outputs, bias=True))
        setattr(self, f"{tag}_norm", nn.BatchNorm2d(outputs))

    def _step(self, x: Tensor, tag: str) -> Tensor:
        x = getattr(self, f"{tag}_norm")(getattr(self, f"{tag}_conv")(x))
        return functional.leaky_relu(x, self.slope, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i in range(self.counts[0]):
            skips.append(self._step(x, f"encoder_{i}"))
            x = functional.max_pool2d(skips[-1], 2)
        for i in range(self.counts[1]):
            x = getattr(self, f"decoder_{i}_deconv")(x) + skips.pop()
            x = self._step(x, f"decoder_{i}")
        return self.out_conv(x)


class MerHead(nn.Module):
    """Temporal convolution and classifier."""

    def __init__(self, c: Mapping[str, Any], num_frames: int, num_classes: int) -> None:
        super().__init__()
        width, side = c["volume_channels"], c["map_size_px"] // 3
        # The published 3-D kernel spans all frames: a 2-D convolution over them is the same.
        self.conv3d = nn.Conv3d(1, width, (3, 3, num_frames), padding=(1, 1, 0))
        self.fc1 = nn.Linear(width * side * side, c["mer_width"])
        self.fc2 = nn.Linear(c["mer_width"], num_classes)
        self.dropout = nn.Dropout(c["mer_dropout_rate"])

    def represent(self, volume: Tensor) -> Tensor:
        """Maps f[B,M,M,T] to f[B,8,M,M]."""
        kernel = self.conv3d.weight[:, 0].permute(0, 3, 1, 2)
        volume = volume.permute(0, 3, 1, 2).contiguous()
        return functional.conv2d(volume, kernel, self.conv3d.bias, padding=1)

    def forward(self, representation: Tensor) -> Tensor:
        x = functional.max_pool2d(representation, 3).flatten(1)
        return self.fc2(self.dropout(functional.relu(self.fc1(x))))


class RankScorer(nn.Module):
    """A linear score of each frame's features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(1, features))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight[0]


class FDP(nn.Module):
    """The whole network, for options of FDP as a dict.

    With `per_frame_batch_norm` the frames go through the network one after another, as in the
    released code, whose batch norm sees one frame position at a time; else all at once.
    """

    def __init__(
        self, c: Mapping[str, Any], *, num_classes: int = 5, num_frames: int = 8,
        channels: int = 1, image_size: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.c = c
        self.frame_rep = FrameNetwork(c, channels, image_size)
        self.mer = MerHead(c, num_frames, num_classes)
        if c["dynamic_image_network"] == "segnet":
            self.dyimg_net = SegNet(c["volume_channels"])
        else:
            self.dyimg_net = EncoderDecoder(c)
        if c["use_rank_scorer"]:
            self.rank_scorer = RankScorer(c["map_size_px"] ** 2)
        for module in self.frame_rep.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Maps f32[B,T,C,H,W] to `logits`, `dynamic_image` and, with a scorer, `rank_scores`."""
        b, t = clip.shape[:2]
        if self.c["per_frame_batch_norm"]:
            features = torch.stack([self.frame_rep(clip[:, i]) for i in range(t)], 1)
        else:
            features = self.frame_rep(clip.flatten(0, 1)).reshape(b, t, -1)
        side = self.c["map_size_px"]
        if self.c["volume_layout"] == "raw_reshape":
            volume = features.reshape(b, side, side, t)
        else:
            volume = features.reshape(b, t, side, side).permute(0, 2, 3, 1)
        representation = self.mer.represent(volume)
        outputs = {
            "logits": self.mer(representation),
            "dynamic_image": torch.sigmoid(self.dyimg_net(representation)[:, 0]),
        }
        if self.c["use_rank_scorer"]:
            outputs["rank_scores"] = self.rank_scorer(features)
        return outputs


def make(
    keys: Mapping[str, Any], *, num_classes: int, num_frames: int, channels: int, image_size: int
) -> nn.Module:
    """The network.

    Raises:
      SystemExit: clips in colour, of which the dynamic image would need the luma.
    """
    if channels != 1:
        raise SystemExit("The PyTorch side of FDP takes gray clips: set data.is_color=False.")
    return FDP(keys, num_classes=num_classes, num_frames=num_frames, image_size=image_size)


def target(frames: Tensor, keys: Mapping[str, Any]) -> Tensor:
    """The dynamic image f32[B,M,M]."""
    return dynamic_image(frames[:, :, 0], keys["map_size_px"], quantize=keys["quantize_target"])


def dynamic_image(frames: Tensor, size: int, *, quantize: bool) -> Tensor:
    """Maps f32[B,T,H,W] in [0,1] to f32[B,size,size] by approximate rank pooling."""
    weights = torch.from_numpy(rank_pooling_weights(frames.shape[1]).astype(np.float32))
    image = torch.einsum("t,bthw->bhw", weights.to(frames.device), frames)
    if image.shape[-1] != size:
        image = functional.avg_pool2d(image[:, None], image.shape[-1] // size)[:, 0]
    low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    image = (image - low) / (high - low).clamp_min(1e-12)
    return torch.floor(image * 255.0) / 255.0 if quantize else image


def loss(outputs: Mapping[str, Tensor], target: Tensor, label: Tensor, c: Mapping) -> Tensor:
    """Cross-entropy, dynamic-image and rank loss, weighted and averaged over the batch."""
    total = functional.cross_entropy(outputs["logits"], label, label_smoothing=c["label_smoothing"])
    total = total + c["lambda_d"] * functional.mse_loss(outputs["dynamic_image"], target)
    if "rank_scores" in outputs:
        scores = outputs["rank_scores"]
        ranks = c["rank_slope"] * torch.arange(scores.shape[1], device=scores.device)
        total = total + c["lambda_r"] * (ranks - scores).abs().sum(1).mean()
    return total
