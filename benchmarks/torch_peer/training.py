"""Training on the PyTorch side: data, augmentation, losses and optimizer are those of the card."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from mexjax.train.augment import IMAGENET_MEAN, IMAGENET_STD, LUMA, YIQ
from mexjax.train.study import Study
from torch_peer import released
from torch_peer.layers import use_layout
from torch_peer.peers import get_peer

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Side:
    """A study on a device, and one fold of it at a time.

    Attributes:
      device: `cuda` or `cpu`.
      clips: u8[N,T,C,H,W].
      labels: i64[N].
      model: network of the current fold.
      optimizer: optimizer of the current fold.
    """

    def __init__(self, study: Study, layout: str, *, path: str = "") -> None:
        """Puts the data on the device.

        Args:
          study: data, folds and configuration.
          layout: `contiguous` or `channels_last`.
          path: a checkout of the released code, whose network is used instead of ours.
        """
        self.config, self.layout, self.path = study.config, layout, path
        self.device = prepare_torch(study.config)
        clips = np.moveaxis(study.dataset.clips, -1, 2).copy()
        self.clips = torch.from_numpy(clips).to(self.device)
        self.labels = torch.from_numpy(study.dataset.labels.astype(np.int64)).to(self.device)
        self.num_classes = len(study.dataset.class_names)
        self.name = study.config.model.name
        self.peer = get_peer(self.name)
        self.keys = dataclasses.asdict(study.options)

    def start_fold(self, number: int) -> None:
        """Makes a new network and optimizer, seeded with the fold's number."""
        torch.manual_seed(number)
        self.rng = np.random.default_rng(number)
        self.model = self.make_model()
        self.optimizer = make_optimizer(self.model.parameters(), self.config)

    def make_model(self) -> nn.Module:
        """A network in training mode, in the layout, on the device."""
        if self.path:
            model = released.load(self.name, self.path)
        else:
            _, num_frames, channels, size, _ = self.clips.shape
            model = self.peer.make(
                self.keys,
                num_classes=self.num_classes,
                num_frames=num_frames,
                channels=channels,
                image_size=self.config.augment.crop_px or size,
            )
        model.to(self.device).train()
        use_layout(model, self.layout)
        return model

    def batch(self, idx: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input f32[B,T,C,H,W], target f32[B,...] and label i64[B] of the clips `idx` i64[B]."""
        frames = augment(self.clips[idx].float() / 255.0, self.config, self.rng)
        target = self.peer.target(frames, self.keys)
        return normalise(frames, self.config.data.center), target, self.labels[idx]

    def update(self, idx: Tensor, rate: float) -> None:
        """One training step on the clips `idx` i64[B] at a learning rate."""
        clip, target, label = self.batch(idx)
        loss = self.peer.loss(self.model(clip), target, label, self.keys)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        apply(self.optimizer, rate)

    def predict(self, idx: Tensor) -> np.ndarray:
        """Classes i64[B] of the clips `idx`, by the mean over mirror images if the card says so."""
        self.model.eval()
        with torch.inference_mode():
            frames = self.clips[idx].float() / 255.0
            views = (frames, frames.flip(-1)) if self.config.eval.is_flip_averaged else (frames,)
            logits = sum(self.model(normalise(f, self.config.data.center))["logits"] for f in views)
        return logits.argmax(1).cpu().numpy()


def make_optimizer(parameters: Iterable[Tensor], config: ConfigDict) -> torch.optim.Optimizer:
    """The card's optimizer, all parameters in one kernel."""
    make = OPTIMIZERS[config.train.optimizer]
    return make(parameters, weight_decay=config.train.weight_decay, fused=True)


def apply(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One update at a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def prepare_torch(config: ConfigDict) -> str:
    """Sets threads and precision as on the other side, and returns the device.

    Raises:
      SystemExit: the card asks for something that the peer does not do.
    """
    if config.precision != "tf32" or config.data.split_scale != "none":
        raise SystemExit(
            "The PyTorch side computes in float32, rounded to TF32 on a GPU, without"
            f" data.split_scale; change the card's precision={config.precision} and"
            f" data.split_scale={config.data.split_scale}."
        )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # On a GPU, JAX rounds float32 products to TF32 by default, and so does the peer.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def augment(frames: Tensor, config: ConfigDict, rng: np.random.Generator) -> Tensor:
    """Rotates, crops or shifts, flips and recolours each clip f32[B,T,C,H,W] by its own draw."""
    shift, crop = config.augment.shift_px, config.augment.crop_px
    if config.augment.rotation_deg:
        frames = rotate(frames, config.augment.rotation_deg, rng)
    if shift or crop or config.augment.is_flipped:
        frames = move(frames, config, rng)
    amounts = [config.augment[name] for name in ("brightness", "contrast", "saturation", "hue")]
    return jitter(frames, amounts, rng) if any(amounts) else frames


def rotate(frames: Tensor, largest_deg: float, rng: np.random.Generator) -> Tensor:
    """Turns each clip f32[B,T,C,H,W] about its middle, bilinear, with repeated edges."""
    b, t, c, h, w = frames.shape
    angle = torch.from_numpy(np.deg2rad(rng.uniform(-largest_deg, largest_deg, b))).to(frames)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], 1)
    grid = functional.affine_grid(turn, [b, t * c, h, w], align_corners=True)
    flat = frames.reshape(b, t * c, h, w)
    turned = functional.grid_sample(flat, grid, padding_mode="border", align_corners=True)
    return turned.reshape(frames.shape)


def jitter(frames: Tensor, amounts: list[float], rng: np.random.Generator) -> Tensor:
    """Changes brightness, contrast, saturation and hue of each clip f32[B,T,C,H,W] in [0, 1]."""
    b, _, channels = frames.shape[:3]
    draws = torch.from_numpy(rng.uniform(-1, 1, (4, b, 1, 1, 1, 1))).to(frames)
    brightness, contrast, saturation, hue = (a * d for a, d in zip(amounts, draws, strict=True))
    frames = frames * (1 + brightness)
    luma = torch.tensor(LUMA).to(frames)
    mean = frames.mean((1, 3, 4))
    mean = (mean @ luma if channels == 3 else mean[:, 0]).view(b, 1, 1, 1, 1)
    frames = mean + (frames - mean) * (1 + contrast)
    if channels == 3 and (amounts[2] or amounts[3]):
        yiq = torch.tensor(YIQ).to(frames)
        angle, factor = 2 * np.pi * hue.flatten(), 1 + saturation.flatten()
        turn = torch.zeros(b, 3, 3).to(frames)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = factor * angle.cos()
        turn[:, 1, 2], turn[:, 2, 1] = -factor * angle.sin(), factor * angle.sin()
        colours = torch.linalg.inv(yiq) @ turn @ yiq
        frames = torch.einsum("bij,btjhw->btihw", colours, frames)
    return frames.clamp(0, 1)


def move(frames: Tensor, config: ConfigDict, rng: np.random.Generator) -> Tensor:
    """Crops or shifts, and flips, each clip f32[B,T,C,H,W] by its own draw."""
    shift, crop = config.augment.shift_px, config.augment.crop_px
    b, t, c, h, w = frames.shape
    if shift:
        padded = functional.pad(frames.reshape(b, t * c, h, w), (shift,) * 4, mode="replicate")
        frames = padded.reshape(b, t, c, h + 2 * shift, w + 2 * shift)
    size = crop or h
    y, x = rng.integers(0, frames.shape[-1] - size + 1, (2, b, 1))
    rows, columns = y + np.arange(size), x + np.arange(size)
    if config.augment.is_flipped:
        columns = np.where(rng.random((b, 1)) < 0.5, columns[:, ::-1], columns)
    clip, rows, columns = (
        torch.from_numpy(np.ascontiguousarray(index)).to(frames.device)
        for index in (np.arange(b)[:, None, None], rows[:, :, None], columns[:, None])
    )
    return frames[clip, :, :, rows, columns].permute(0, 3, 4, 1, 2)


def normalise(frames: Tensor, center: str) -> Tensor:
    """Does the same as `mexjax.train.augment.normalise`, on f32[B,T,C,H,W]."""
    if center == "none":
        return (frames - 0.5) / 0.5
    if center == "imagenet":
        mean, std, luma = (
            torch.tensor(x, device=frames.device) for x in (IMAGENET_MEAN, IMAGENET_STD, LUMA)
        )
        if frames.shape[2] == 1:
            mean, std = (luma * mean).sum(), (luma * std).sum()
        return (frames - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    moved = frames - (frames[:, :1] if center == "onset" else frames.mean(1, keepdim=True))
    deviation = moved.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
    return moved / deviation.clamp_min(1.0 / 255.0)
