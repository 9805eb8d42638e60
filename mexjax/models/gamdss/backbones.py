"""Backbones that take the place of the retention network in a spatio-temporal unit.

Each turns the difference of two frames into a map f[N,h,w,C], to which the map of places is added;
the sum is averaged over the map and classified. Two of them are in the released code of GAMDSS: a
ResNet of four blocks with a fine stem (which does not import there) and ConvNeXt-T (which cannot
run there: its table of places has the size of another map). That the last map of Swin-T and
VMamba-T is normalised before the sum, as in front of their own classifiers, is our reading.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.nn.convnext import ConvNeXt
from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import torch_bias_init, torch_kernel_init, truncated_normal
from mexjax.nn.mode import Mode
from mexjax.nn.resnet import ResNet
from mexjax.nn.swin import Swin
from mexjax.nn.vmamba import VMamba

SIZES = ("published", "small")


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone in two sizes.

    Attributes:
      module: class of the network; `module(**fields)(x, mode)` is the map.
      published: fields of the network of that name; maps are the image over 16 or 32.
      small: fields of one for frames of 64 pixels, with a map of 8x8.
      has_head_norm: the mean over the map is normalised before the classifier.
    """

    module: Callable[..., nn.Module]
    published: Mapping[str, Any]
    small: Mapping[str, Any]
    has_head_norm: bool

    @property
    def has_batch_norm(self) -> bool:
        """True if statistics of the batch are taken.

        The module then has a field `per_frame` and no stochastic depth.
        """
        return self.module is ResNet

    def fields(self, size: str) -> dict[str, Any]:
        """The fields of a size, `published` or `small`."""
        return dict({"published": self.published, "small": self.small}[size])


# The stem of the released ResNet: a map of 14x14 from 224 pixels, where ResNet-18 has 7x7.
_FINE_STEM = {"stem_kernel": 3, "stem_stride": 1}

BACKBONES: dict[str, Backbone] = {
    "resnet_shallow": Backbone(
        ResNet,
        {"channels": (64, 128, 256, 512), "blocks": (1, 1, 1, 1), **_FINE_STEM},
        {"channels": (16, 24, 48), "blocks": (1, 1, 1), **_FINE_STEM},
        has_head_norm=False,
    ),
    "resnet18": Backbone(
        ResNet,
        {"channels": (64, 128, 256, 512), "blocks": (2, 2, 2, 2)},
        {"channels": (24, 48), "blocks": (2, 2)},
        has_head_norm=False,
    ),
    "convnext_tiny": Backbone(
        ConvNeXt,
        {"channels": (96, 192, 384, 768), "depths": (3, 3, 9, 3)},
        {"channels": (24, 48), "depths": (1, 1)},
        has_head_norm=True,
    ),
    "swin_tiny": Backbone(
        Swin,
        {"channels": (96, 192, 384, 768), "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
        {"channels": (24, 48), "depths": (2, 2), "num_heads": (2, 4), "window": 4},
        has_head_norm=True,
    ),
    "vmamba_tiny": Backbone(
        VMamba,
        {"channels": (96, 192, 384, 768), "depths": (2, 2, 8, 2)},
        {"channels": (24, 48), "depths": (1, 1)},
        has_head_norm=True,
    ),
}


class PooledHead(nn.Module):
    """Mean over the map, a layer norm if there is one, linear: f[N,h,w,C] -> f32[N,K].

    Attributes:
      num_classes: K.
      has_norm: True: the linear layer is drawn by a normal of 0.02 (ConvNeXt); False: as PyTorch
        draws it (ResNet).
    """

    num_classes: int
    has_norm: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Runs on maps; `mode` changes nothing and is there as in every head."""
        del mode
        x = x.mean(axis=(1, 2))
        inits: dict[str, Any] = {
            "kernel_init": torch_kernel_init(),
            "bias_init": torch_bias_init(x.shape[-1]),
        }
        if self.has_norm:
            x = LayerNorm(1e-6, dtype=self.dtype, name="norm")(x)
            inits = {"kernel_init": truncated_normal(0.02)}
        dense = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier", **inits)
        return dense(x).astype(jnp.float32)


def make_backbone(
    name: str, size: str, *, drop_path_rate: float, per_frame: bool, dtype: DTypeLike
) -> nn.Module:
    """The network `name`, called "backbone", as a submodule of the module that calls this.

    Args:
      name: a key of `BACKBONES`.
      size: one of `SIZES`.
      drop_path_rate: stochastic depth of the last block; ResNets have none.
      per_frame: see `BatchNorm`; only ResNets have statistics.
      dtype: the type it computes in.
    """
    backbone = BACKBONES[name]
    fields = backbone.fields(size)
    if backbone.has_batch_norm:
        fields["per_frame"] = per_frame
    else:
        fields["drop_path_rate"] = drop_path_rate
    return backbone.module(**fields, dtype=dtype, name="backbone")
