"""CLIP (Radford et al. 2021): an image and a text transformer that end in one space.

The forward pass is that of the public OpenAI, open_clip and Hugging Face code, tensor by tensor
(`mexjax.interop.clip` reads their weights). Each tower can be run in two parts, so that frozen
blocks need to be run only once for data that never changes.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError
from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import Initializer, space_to_depth
from mexjax.nn.mode import Mode
from mexjax.nn.vit import Block, at_places

# Statistics per channel of colour images in [0, 1] that the public weights were trained with.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

_EPSILON = 1e-5  # every layer norm adds it; flax would take 1e-6
_STILL = Mode()  # no dropout and no stochastic depth in CLIP


@dataclasses.dataclass(frozen=True)
class TowerSize:
    """Size of one transformer.

    Attributes:
      width: channels of a token.
      depth: number of blocks.
      num_heads: heads of the attention.
      mlp_width: hidden width of the MLPs.
    """

    width: int
    depth: int
    num_heads: int
    mlp_width: int


@dataclasses.dataclass(frozen=True)
class ClipSize:
    """Sizes of both towers.

    Attributes:
      image: size of the image transformer.
      text: size of the text transformer.
      patch_px: side of a patch.
      grid: patches along one side of an image.
      context: most tokens of a text.
      vocabulary: number of token ids.
      embed_width: channels of the space that both towers end in.
    """

    image: TowerSize
    text: TowerSize
    patch_px: int = 32
    grid: int = 7
    context: int = 77
    vocabulary: int = 49408
    embed_width: int = 512

    @property
    def image_px(self) -> int:
        """Side of the images."""
        return self.patch_px * self.grid


SIZES: dict[str, ClipSize] = {
    "vit_b_32": ClipSize(TowerSize(768, 12, 12, 3072), TowerSize(512, 12, 8, 2048)),
    # This size is for tests: a forward pass takes milliseconds.
    "tiny": ClipSize(
        TowerSize(32, 2, 4, 128),
        TowerSize(32, 2, 4, 128),
        context=16,
        vocabulary=128,
        embed_width=16,
    ),
}


def _init(std: float) -> Initializer:
    return nn.initializers.normal(std)


class _ImageEmbedding(nn.Module):
    """A linear map of every patch, row by row, after a class token: f[B,S,S,3] -> f[B,1+G*G,C]."""

    size: ClipSize
    dtype: DTypeLike

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        side, px, width = self.size.image_px, self.size.patch_px, self.size.image.width
        if image.ndim != 4 or image.shape[1:] != (side, side, 3):
            raise ConfigError(
                f"This CLIP image tower takes images [B, {side}, {side}, 3]; found {image.shape}."
            )
        # A convolution whose kernel is its stride is a matrix product.
        x = space_to_depth(image.astype(self.dtype), px)
        fan_in = 3 * px * px
        kernel = self.param("kernel", _init(fan_in**-0.5), (px, px, 3, width))
        x = x.reshape(len(x), -1, fan_in) @ kernel.astype(self.dtype).reshape(fan_in, width)
        token = self.param("class_token", _init(width**-0.5), (width,)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, width)), x], axis=1)
        position = self.param("position", _init(width**-0.5), (x.shape[1], width))
        return x + position.astype(self.dtype)


class _TextEmbedding(nn.Module):
    """Token ids i32[M,L] as vectors f[M,L,C], with their positions added."""

    size: ClipSize
    dtype: DTypeLike

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        s = self.size
        if ids.ndim != 2 or ids.shape[1] > s.context:
            raise ConfigError(
                f"This CLIP text tower takes token ids [M, L] with L at most {s.context}; found"
                f" {ids.shape}."
            )
        tokens = self.param("tokens", _init(0.02), (s.vocabulary, s.text.width))
        position = self.param("position", _init(0.01), (s.context, s.text.width))
        x = jnp.asarray(tokens)[ids] + position[: ids.shape[1]]
        return x.astype(self.dtype)


def _blocks(tower: TowerSize, activation: str, dtype: DTypeLike, is_causal: bool) -> list[Block]:
    return [
        Block(
            tower.num_heads,
            tower.mlp_width,
            dtype=dtype,
            activation=activation,
            epsilon=_EPSILON,
            is_causal=is_causal,
            kernel_init=_init(tower.width**-0.5),
        )
        for _ in range(tower.depth)
    ]


class ImageTower(nn.Module):
    """The image transformer.

    Attributes:
      size: sizes of the network.
      activation: `quick_gelu` (OpenAI's weights) or `gelu` (most others).
      dtype: dtype of the computation; parameters are float32.
    """

    size: ClipSize
    activation: str = "quick_gelu"
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Make the layers of the tower."""
        self.embed = _ImageEmbedding(self.size, self.dtype)
        self.pre_norm = LayerNorm(_EPSILON, dtype=self.dtype)
        self.blocks = _blocks(self.size.image, self.activation, self.dtype, is_causal=False)
        self.post_norm = LayerNorm(_EPSILON, dtype=self.dtype)
        width = self.size.image.width
        self.projection = nn.Dense(
            self.size.embed_width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_init(width**-0.5),
        )

    def first(self, image: jax.Array, num_blocks: int) -> jax.Array:
        """All tokens after `num_blocks` blocks, the class token first: f[B,S,S,3] -> f[B,L,C]."""
        x = self.pre_norm(self.embed(image))
        for block in self.blocks[:num_blocks]:
            x = block(x, _STILL)
        return x

    def rest(self, x: jax.Array, num_blocks: int, places: jax.Array | None = None) -> jax.Array:
        """The blocks after the first `num_blocks`: f[B,L,C] -> f[B,L,C], before the last norm.

        With `places` i32[B,Q] only the tokens there are computed where that is possible, in the
        last block: f[B,Q,C].
        """
        blocks = self.blocks[num_blocks:]
        for i, block in enumerate(blocks):
            x = block(x, _STILL, places if i == len(blocks) - 1 else None)
        return x if blocks else at_places(x, places)

    def norm(self, x: jax.Array) -> jax.Array:
        """The last layer norm of any tokens; CLIP itself applies it to the class token only."""
        return self.post_norm(x)

    def project(self, x: jax.Array) -> jax.Array:
        """Tokens f[...,C] after the norm in the space that both towers share, f[...,E]."""
        return self.projection(x)


class TextTower(nn.Module):
    """The text transformer; its attributes are those of `ImageTower`.

    A text is represented by its end token: `ids` hold one, the largest id of the vocabulary, and
    tokens after it have no influence. Contexts shorter than `size.context` give the same result.
    """

    size: ClipSize
    activation: str = "quick_gelu"
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Make the layers of the tower."""
        self.embed = _TextEmbedding(self.size, self.dtype)
        self.blocks = _blocks(self.size.text, self.activation, self.dtype, is_causal=True)
        self.final_norm = LayerNorm(_EPSILON, dtype=self.dtype)
        self.projection = nn.Dense(
            self.size.embed_width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_init(self.size.text.width**-0.5),
        )

    def first(self, ids: jax.Array, num_blocks: int) -> jax.Array:
        """All tokens after `num_blocks` blocks: i32[M,L] -> f[M,L,C]."""
        x = self.embed(ids)
        for block in self.blocks[:num_blocks]:
            x = block(x, _STILL)
        return x

    def rest(self, x: jax.Array, ids: jax.Array, num_blocks: int) -> jax.Array:
        """The blocks after the first `num_blocks`, norm and projection: f[M,L,C] -> f[M,E]."""
        ends = ids.argmax(axis=1)[:, None]
        blocks = self.blocks[num_blocks:]
        for i, block in enumerate(blocks):
            x = block(x, _STILL, ends if i == len(blocks) - 1 else None)
        x = x if blocks else at_places(x, ends)
        return self.projection(self.final_norm(x[:, 0]))


class Clip(nn.Module):
    """Both towers; the attributes are those of `ImageTower`."""

    size: ClipSize
    activation: str = "quick_gelu"
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Make both towers and the temperature."""
        self.image = ImageTower(self.size, self.activation, self.dtype)
        self.text = TextTower(self.size, self.activation, self.dtype)
        # Radford et al. start at a temperature of 0.07; trained weights hold log(100).
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ()
        )

    def __call__(self, images: jax.Array, ids: jax.Array) -> dict[str, jax.Array]:
        """Compare images with texts.

        Args:
          images: f[B,S,S,3], normalised with `IMAGE_MEAN` and `IMAGE_STD`.
          ids: i32[M,L], token ids (see `mexjax.models.micro_au_clip.prompts`).

        Returns:
          image_features f[B,E] and text_features f[M,E]; image_embeds and text_embeds, the same of
          unit length; logits_per_image f[B,M], their products times exp(logit_scale); and of the
          patches without the class token, row by row: patch_tokens_raw f[B,G*G,C] as the last
          block gives them, patch_tokens_normed f[B,G*G,C] after the last norm, patch_tokens
          f[B,G*G,E] also projected.
        """
        raw = self.image.rest(self.image.first(images, 0), 0)
        normed = self.image.norm(raw)
        projected = self.image.project(normed)
        text = self.text.rest(self.text.first(ids, 0), ids, 0)
        outputs = {"image_features": projected[:, 0], "text_features": text}
        for kind in ("image", "text"):
            outputs[f"{kind}_embeds"] = unit(outputs[f"{kind}_features"])
        products = outputs["image_embeds"] @ outputs["text_embeds"].T
        return outputs | {
            "logits_per_image": jnp.exp(self.logit_scale) * products,
            "patch_tokens_raw": raw[:, 1:],
            "patch_tokens_normed": normed[:, 1:],
            "patch_tokens": projected[:, 1:],
        }


def unit(x: jax.Array) -> jax.Array:
    """Vectors f[...,E], each divided by its length."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
