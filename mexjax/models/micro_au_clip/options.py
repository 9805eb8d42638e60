"""Presets of Micro-AU CLIP: every option with its meaning, and the gaps that the paper leaves.

Equations, tables and figures are those of arXiv 2603.16302. No code of it is known. The
text does not say what a comment calls "our reading".
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from mexjax.config.conditions import When
from mexjax.errors import ConfigError
from mexjax.models.options import COUNT, POSITIVE

RANDOM = "random"  # value of `weights` for towers that stay as they are drawn
_TOWER_SIZES = (
    "patch_px", "image_width", "image_depth", "image_heads", "text_width", "text_depth",
    "text_heads", "mlp_ratio", "embed_width",
)  # fmt: skip
_TOKENS = When("branches", ("both", "local"))
_FACE = When("branches", ("both", "global"))
_GDA = When("fusion", ("gda",))
_CONTRAST = When("contrast", ("none",), is_unless=True)
# Conditions without which an option has no effect.
ACTS: dict[str, tuple[When, ...]] = {
    "train_projections": (When("trainable_from"),),
    **dict.fromkeys(_TOWER_SIZES, (When("weights", ("", RANDOM)),)),
    "pooling": (_TOKENS,),
    "pooling_width": (_TOKENS, When("pooling", ("attention",))),
    "fusion": (_FACE,),
    **dict.fromkeys(("fc_mode", "gd_target"), (_FACE, _GDA)),
    "beta": (_FACE, _GDA),
    **dict.fromkeys(("alpha", "contrast_scale", "is_contrast_scale_learnt"), (_CONTRAST,)),
    "mer_text": (_CONTRAST,),
    "prompts_file": (_CONTRAST,),
    "merges_file": (When("prompts_file"),),
}
BOUNDS = {"trainable_from": COUNT, "contrast_scale": POSITIVE}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of Micro-AU CLIP; the defaults are those of the text."""

    # Path of a CLIP checkpoint (OpenAI, open_clip or Hugging Face names; .safetensors, .pt, .bin).
    # Empty: there is none, and both towers are trained from nothing, with the sizes below. random:
    # the same, but blocks may be frozen, which is meant to measure times.
    weights: str = ""
    # Blocks before this one, and the embeddings, keep their weights: the paper trains the last
    # three of twelve. 0: everything is trained.
    trainable_from: int = 9
    # True: the layer norms and projections behind the trained blocks are trained too (our reading).
    train_projections: bool = True
    # Table III: false keeps the whole text tower as it is.
    train_text: bool = True
    # Learning rate of the trained part of the towers, over train.learning_rate.
    tower_rate: float = 0.1
    # Sizes of towers without weights: side of a patch, patches a side, width, blocks, heads.
    patch_px: int = 32
    grid: int = 7
    image_width: int = 768
    image_depth: int = 12
    image_heads: int = 12
    text_width: int = 512
    text_depth: int = 12
    text_heads: int = 8
    mlp_ratio: int = 4
    embed_width: int = 512
    # quick_gelu (OpenAI's CLIP) | gelu. Empty: the files beside a checkpoint decide, and
    # without any it is quick_gelu; without weights it is gelu.
    activation: Literal["", "gelu", "quick_gelu", "relu"] = ""
    # joint: post-norm and projection of every token, so that images and texts have one length
    # without a layer the paper does not name | width: post-norm only, and a linear layer before
    # cosines. Our reading is joint.
    token_space: Literal["joint", "width"] = "joint"
    # Table II: both | local (LSI alone: F_V is the unit's own feature, no GD loss) | global (GSD
    # alone: units are linear maps of the class token).
    branches: Literal["both", "local", "global"] = "both"
    # Table VI: attention (Eq. 2 and 3) | mean | max, of a unit's tokens.
    pooling: Literal["attention", "mean", "max"] = "attention"
    # Hidden width of the MLP that scores tokens; one for each unit, since units 1, 2 and 4 see the
    # same landmarks.
    pooling_width: int = 128
    # True: there is a linear map for each unit after pooling; the paper has none.
    has_unit_projection: bool = False
    # Table VII: gda (Eq. 4 to 6) | cat_mlp | add_mlp, what all units have in common.
    fusion: Literal["gda", "cat_mlp", "add_mlp"] = "gda"
    # incoming | outgoing | flatten: readings of FC in Eq. 5, see `attention.py`.
    fc_mode: Literal["incoming", "outgoing", "flatten"] = "incoming"
    # Hidden width of each unit's classifier.
    head_width: int = 256
    # Dropout before the classifier's linear layers, in training. The paper has none.
    dropout_rate: float = 0.0
    # Weights of the contrastive and of the GD loss; the paper takes 0.6 and 1.0 on CASME II, 1.0
    # and 0.6 on SAMM (Tables IV and V).
    alpha: float = 0.6
    beta: float = 1.0
    # The target of W_d: multi_hot (Eq. 8 as printed) | normalised.
    gd_target: Literal["multi_hot", "normalised"] = "multi_hot"
    # Table VIII: none | global (the class token with all sentences joined) | diagonal (a unit at a
    # time, the paper's "local") | bce, softmax_multihot, softmax_normalised: readings of the
    # cross-entropy between LM and M, see `losses.py`. softmax_normalised is diagonal.
    contrast: Literal[
        "none", "global", "bce", "softmax_multihot", "softmax_normalised", "diagonal"
    ] = "bce"
    # Factor on the cosines: the paper names no temperature, and reports texts that end up opposite
    # to each other, which only a factor near 1 asks for. CLIP's is 100.
    contrast_scale: float = 1.0
    is_contrast_scale_learnt: bool = False
    # Eq. 13: combinations (each unit with its own sentence, as trained) | sentence (one text an
    # emotion's units: outside of what was trained).
    mer_text: Literal["combinations", "sentence"] = "combinations"
    # JSON file with other sentences: {"4": {"negative": "...", "positive": "..."}}.
    prompts_file: str = ""
    # CLIP's list of merges, for sentences that do not ship with the package. Empty: the installed
    # open_clip_torch wheel.
    merges_file: str = ""
    # The type the network computes in; parameters, attention weights, logits and losses are
    # float32.
    dtype: Literal["float32", "bfloat16"] = "float32"

    acts = ACTS
    bounds = BOUNDS

    @property
    def has_checkpoint(self) -> bool:
        """True if the towers come from a file."""
        return self.weights not in ("", RANDOM)


PAPER = Options()
PRESETS = {
    "paper": PAPER,
    # The weights of Tables IV and V for SAMM's four units.
    "paper_samm": dataclasses.replace(PAPER, alpha=1.0, beta=0.6),
    # Small towers trained from nothing, for a laptop: not a CLIP.
    "tiny": dataclasses.replace(
        PAPER,
        trainable_from=0,
        tower_rate=1.0,
        patch_px=8,
        image_width=64,
        image_depth=2,
        image_heads=4,
        text_width=32,
        text_depth=1,
        text_heads=2,
        mlp_ratio=2,
        embed_width=64,
        pooling_width=32,
        head_width=64,
    ),
}


def check_start(options: Options) -> None:
    """Refuse options that keep weights as they are where there are none.

    Raises:
      ConfigError: blocks or the text tower are kept, and `weights` is empty.
    """
    if not options.weights and (options.trainable_from > 0 or not options.train_text):
        raise ConfigError(
            f"model.trainable_from={options.trainable_from} and"
            f" model.train_text={options.train_text} keep weights as they are, and there are"
            " none: model.weights is empty. Give the path of a CLIP checkpoint"
            " (--config.model.weights=model.safetensors, from"
            " https://huggingface.co/openai/clip-vit-base-patch32), or train small towers from"
            " nothing (model.preset=tiny)."
        )
