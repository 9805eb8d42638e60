"""AC4AU in PyTorch: the network that `benchmarks/step_time.py` measures against.

The backbone has the names of InsightFace_Pytorch, the rest those of mexjax, so that both sides can
be given the same weights and their losses compared before their times are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mexjax.interop import common, mobilefacenet
from mexjax.nn.mobilefacenet import BOTTLENECKS, GROUPS, TAIL_WIDTH
from mexjax.train.study import Study
from torch_peer import training
from torch_peer.layers import use_layout


class ConvBlock(nn.Module):
    """Convolution, batch norm, PReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, **other: Any):
        super().__init__()
        has_activation = other.pop("has_activation", True)
        options = {"bias": False, "padding": kernel // 2, "stride": stride} | other
        self.conv = nn.Conv2d(inputs, outputs, kernel, **options)
        self.bn = nn.BatchNorm2d(outputs)
        if has_activation:
            self.prelu = nn.PReLU(outputs)
        self.has_activation = has_activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.prelu(x) if self.has_activation else x


class Bottleneck(nn.Module):
    """Widen, convolve each channel by itself, narrow; with a skip where the shape stays."""

    def __init__(self, inputs: int, outputs: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs, inner)
        self.conv_dw = ConvBlock(inner, inner, 3, stride, groups=inner)
        self.project = ConvBlock(inner, outputs, has_activation=False)
        self.has_skip = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.has_skip else y


class Repeated(nn.Module):
    """Bottlenecks with skips, one after the other."""

    def __init__(self, width: int, inner: int, count: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(Bottleneck(width, width, inner, 1) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Backbone(nn.Module):
    """MobileFaceNet, with a module after one of its stages."""

    def __init__(self, c: Mapping[str, Any], channels: int, image_size: int) -> None:
        super().__init__()
        groups = GROUPS // c["backbone_divisor"]
        width = groups * c["width"]
        self.conv1 = ConvBlock(channels, width, 3, 2)
        self.conv2_dw = ConvBlock(width, width, 3, groups=groups)
        depths, size = iter(c["backbone_depths"]), -(-image_size // 2)
        self.sizes: dict[str, int] = {}
        for name, inner, features, stride in BOTTLENECKS:
            outputs = features * c["width"] // c["backbone_divisor"]
            inner //= c["backbone_divisor"]
            if stride > 1:
                block: nn.Module = Bottleneck(width, outputs, inner, stride)
                size = -(-size // stride)
            else:
                block = Repeated(outputs, inner, next(depths))
            self.add_module(name, block)
            width, self.sizes[name] = outputs, size
        tail = TAIL_WIDTH // c["backbone_divisor"]
        self.conv_6_sep = ConvBlock(width, tail)
        self.conv_6_dw = ConvBlock(tail, tail, size, groups=tail, padding=0, has_activation=False)
        self.linear = nn.Linear(tail, c["emb_dim"], bias=False)
        self.bn = nn.BatchNorm1d(c["emb_dim"])

    def forward(self, x: Tensor, inserted_at: str, inserted: nn.Module) -> Tensor:
        x = self.conv2_dw(self.conv1(x))
        for name, *_ in BOTTLENECKS:
            x = self.get_submodule(name)(x)
            if name == inserted_at:
                n, width, height, _ = x.shape
                tokens = inserted(x.flatten(2).transpose(1, 2))
                x = tokens.transpose(1, 2).reshape(n, width, height, -1)
        x = self.conv_6_dw(self.conv_6_sep(x))
        return self.bn(self.linear(x.flatten(1)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden: int, rate: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attention = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.attention["qkv"](self.norm1(x)).chunk(3, -1)
        q, k, v = (a.reshape(n, length, self.heads, -1).transpose(1, 2) for a in qkv)
        rate = self.rate if self.training else 0.0
        y = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        y = self.attention["proj"](y.transpose(1, 2).reshape(n, length, width))
        x = x + self.drop(y)
        hidden = self.drop(functional.gelu(self.fc1(self.norm2(x))))
        return x + self.drop(self.fc2(hidden))


class Encoder(nn.Module):
    """Position code, blocks and perhaps a last norm."""

    def __init__(
        self, c: Mapping[str, Any], kind: str, length: int, width: int, has_norm: bool
    ) -> None:
        super().__init__()
        sizes = [c[f"{kind}_{key}"] for key in ("heads", "mlp_width", "dropout_rate")]
        self.position = nn.Parameter(0.02 * torch.randn(1, length, width))
        blocks = (Block(width, *sizes) for _ in range(c[f"{kind}_depth"]))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, 1e-6) if has_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Mixture(nn.Module):
    """Experts and gates, mixed as probabilities."""

    def __init__(self, c: Mapping[str, Any], units: int) -> None:
        super().__init__()
        width, hidden = c["emb_dim"], c["expert_width"]
        self.fc1_kernel = nn.Parameter(torch.randn(units, width, hidden) * width**-0.5)
        self.fc1_bias = nn.Parameter(torch.zeros(units, hidden))
        self.fc2_kernel = nn.Parameter(torch.randn(units, hidden, 1) * hidden**-0.5)
        self.fc2_bias = nn.Parameter(torch.zeros(units, 1))
        self.gates = nn.Linear(width, units * units)
        self.drop, self.units = nn.Dropout(c["expert_dropout_rate"]), units

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.baddbmm(self.fc1_bias[:, None], x.expand(self.units, -1, -1), self.fc1_kernel)
        y = self.drop(functional.gelu(y))
        logits = torch.baddbmm(self.fc2_bias[:, None], y, self.fc2_kernel)[..., 0].T
        gates = self.gates(x).unflatten(-1, (self.units, self.units)).log_softmax(-1)
        log_p = torch.logsumexp(gates + functional.logsigmoid(logits)[:, None], -1)
        return log_p, torch.logsumexp(gates + functional.logsigmoid(-logits)[:, None], -1)


class AC4AU(nn.Module):
    """The whole network, with a prototype of each subject.

    Raises:
      SystemExit: a configuration that the peer does not do.
    """

    def __init__(
        self,
        c: Mapping[str, Any],
        *,
        units: int,
        subjects: int,
        num_frames: int,
        channels: int,
        image_size: int,
    ) -> None:
        super().__init__()
        asked = {"tail": "backbone", "frd": "irfft", "frd_bands": (), "head": "auser", "top_k": 0}
        asked |= {"expert": "mlp", "mix": "prob", "num_experts": 0, "freeze_bn": False}
        asked |= {"spatial_style": "pre_norm", "temporal_style": "pre_norm", "au_loss": "focal"}
        asked |= {"has_spatial_position": True, "has_temporal_position": True, "bn_eps": 1e-5}
        asked |= {"masks_repeated_frames": False, "arc_mode": "monotone"}
        for key, value in asked.items():
            if c[key] != value:
                raise SystemExit(f"The PyTorch peer does model.{key}={value!r}, found {c[key]!r}.")
        self.c = c
        self.backbone = Backbone(c, channels, image_size)
        size = self.backbone.sizes[c["insert_at"]]
        width = 128 * c["width"] // c["backbone_divisor"]
        self.spatial = Encoder(c, "spatial", size * size, width, False)
        self.temporal = Encoder(
            c, "temporal", num_frames, c["emb_dim"], has_norm=c["has_temporal_norm"]
        )
        self.head = Mixture(c, units)
        self.subject_prototypes = nn.Parameter(0.01 * torch.randn(subjects, c["emb_dim"]))

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Maps f32[B,T,C,H,W], in the colours of the weights, to a dict of the losses' inputs."""
        b, t = clip.shape[:2]
        features = self.backbone(clip.flatten(0, 1), self.c["insert_at"], self.spatial)
        features = features.unflatten(0, (b, t))
        log_p, log_not_p = self.head(self.temporal(features - features.mean(1, True)).mean(1))
        whole = functional.normalize(features.sum(1), dim=-1)
        cosines = whole @ functional.normalize(self.subject_prototypes, dim=-1).T
        return {"log_p": log_p, "log_not_p": log_not_p, "subject_cosines": cosines}


def loss(
    outputs: Mapping[str, Tensor],
    label: Tensor,
    subject: Tensor,
    share: Tensor,
    is_class: Tensor,
    c: Mapping[str, Any],
) -> Tensor:
    """The mean of L_AU + gamma L_DC over the batch."""
    log_p, log_not_p, y = outputs["log_p"], outputs["log_not_p"], label.float()
    focus = c["focus"]
    present = (1 - share) * (focus * log_not_p).exp() * log_p
    absent = share * (focus * log_p).exp() * log_not_p
    total = -(y * present + (1 - y) * absent).sum(-1)
    cosines = outputs["subject_cosines"].clamp(-1 + 1e-7, 1 - 1e-7)
    margin = c["arc_margin"]
    sines = ((1 - cosines.square()).clamp_min(0) + 1e-12).sqrt()
    moved = cosines * math.cos(margin) - sines * math.sin(margin)
    is_past = cosines <= math.cos(math.pi - margin)
    moved = torch.where(is_past, cosines - margin * math.sin(margin), moved)
    is_own = functional.one_hot(subject, cosines.shape[-1]).bool()
    logits = c["arc_scale"] * torch.where(is_own, moved, cosines)
    logits = logits.masked_fill(~is_class, -1e9)
    entropy = functional.cross_entropy(logits, subject, reduction="none")
    return (total + c["gamma"] * entropy).mean()


def make_entries(variables: Mapping[str, Any]) -> list[common.Entry]:
    """One entry for each array of mexjax's variables, by the names of this file's network."""
    entries = []
    backbone = {kind: tree["backbone"] for kind, tree in variables.items()}
    for entry in mobilefacenet.make_entries(backbone, "insightface_pytorch", prefix="backbone."):
        kind, *rest = entry.path
        entries.append(dataclasses.replace(entry, path=(kind, "backbone", *rest)))
    for path, shape in common.flat_shapes({"params": variables["params"]}).items():
        if path[1] == "backbone":
            continue
        name = ".".join(path[1:]).replace("block_", "blocks.").replace("head.experts", "head")
        if path[-1] in ("kernel", "scale", "bias"):
            entries.append(common.plain_entry(path, name.rpartition(".")[0], shape))
        else:
            entries.append(common.permuted(path, name, shape, range(len(shape))))
    return entries


class Side(training.Side):
    """A study of AC4AU on a device."""

    def __init__(self, study: Study, layout: str, *, path: str = "") -> None:
        if path:
            raise SystemExit("No code of AC4AU was released: leave out --peer-path.")
        self.config, self.layout = study.config, layout
        self.device = training.prepare_torch(study.config)
        clips = np.moveaxis(study.dataset.clips, -1, 2)
        self.keys = dataclasses.asdict(study.options)
        if self.keys["channel_order"] == "bgr":
            clips = clips[:, :, ::-1]
        self.clips = torch.from_numpy(clips.copy()).to(self.device)
        to_long = [study.dataset.labels, study.dataset.subjects]
        self.labels, self.subjects = (
            torch.from_numpy(array.astype(np.int64)).to(self.device) for array in to_long
        )
        extras = study.plan.extras.items()
        self.extras = {name: torch.from_numpy(array).to(self.device) for name, array in extras}

    def start_fold(self, number: int) -> None:
        """Makes a new network and optimizer, seeded with the fold's number."""
        torch.manual_seed(number)
        self.rng = np.random.default_rng(number)
        self.fold = {name: array[number] for name, array in self.extras.items()}
        _, num_frames, channels, size, _ = self.clips.shape
        self.model = AC4AU(
            self.keys,
            units=self.labels.shape[1],
            subjects=len(self.fold["is_training_subject"]),
            num_frames=num_frames,
            channels=channels,
            image_size=self.config.augment.crop_px or size,
        )
        self.model.to(self.device).train()
        use_layout(self.model, self.layout)
        self.optimizer = training.make_optimizer(self._groups(), self.config)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters that decay and, if the card decays kernels alone, those that do not."""
        train = self.config.train
        named = dict(self.model.named_parameters())
        if not train.decays_kernels_only:
            return [{"params": list(named.values())}]
        others = ("position", "subject_prototypes", "bias")
        decays = {n for n, p in named.items() if p.ndim > 1 and not n.endswith(others)}
        return [
            {"params": [p for n, p in named.items() if n in decays]},
            {"params": [p for n, p in named.items() if n not in decays], "weight_decay": 0.0},
        ]

    def input(self, frames: Tensor) -> Tensor:
        """Frames f32[B,T,C,H,W] in [0, 1] as the network takes them."""
        return training.normalise(frames, self.config.data.center)

    def update(self, idx: Tensor, rate: float) -> None:
        """One training step on the clips `idx` i64[B] at a learning rate."""
        frames = training.augment(self.clips[idx].float() / 255.0, self.config, self.rng)
        outputs = self.model(self.input(frames))
        extras = (self.fold["unit_share"], self.fold["is_training_subject"])
        total = loss(outputs, self.labels[idx], self.subjects[idx], *extras, self.keys)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        training.apply(self.optimizer, rate)

    def predict(self, idx: Tensor) -> np.ndarray:
        """Labels i64[B,A]: 1 for units that the clips `idx` show."""
        self.model.eval()
        with torch.inference_mode():
            outputs = self.model(self.input(self.clips[idx].float() / 255.0))
        return (outputs["log_p"] > outputs["log_not_p"]).long().cpu().numpy()
