"""Presets of Micro-AU CLIP: every key with what it does, and where the paper leaves it open.

Equations, tables and figures are those of arXiv 2603.16302. No code of it is known: what a comment
calls "our reading" the text does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mexjax.errors import ConfigError, unknown_name
from mexjax.models.micro_au_clip.attention import FC_MODES, POOLINGS
from mexjax.models.micro_au_clip.losses import CONTRASTS, GD_TARGETS
from mexjax.nn.vit import ACTIVATIONS

RANDOM = "random"  # of `weights`: towers as they are drawn

_PAPER: dict[str, Any] = {
    # Path of a CLIP checkpoint (OpenAI, open_clip or Hugging Face names; .safetensors, .pt, .bin).
    # Empty: none, both towers are trained from nothing, with the sizes below. random: as empty, but
    # blocks may be frozen: to measure times.
    "weights": "",
    # Blocks before this one, and the embeddings, keep their weights: the paper trains the last
    # three of twelve. 0: everything is trained.
    "trainable_from": 9,
    # True: also the layer norms and projections behind the trained blocks (our reading).
    "train_projections": True,
    # Table III: false keeps the whole text tower as it is.
    "train_text": True,
    # Learning rate of what is trained of the towers, over train.learning_rate.
    "tower_rate": 0.1,
    # Sizes, where there are no weights: side of a patch, patches a side, width, blocks, heads.
    "patch_px": 32,
    "grid": 7,
    "image_width": 768,
    "image_depth": 12,
    "image_heads": 12,
    "text_width": 512,
    "text_depth": 12,
    "text_heads": 8,
    "mlp_ratio": 4,
    "embed_width": 512,
    # quick_gelu (OpenAI's CLIP) | gelu. Empty: of a checkpoint, what lies beside the file says, and
    # where nothing does quick_gelu; without weights gelu.
    "activation": "",
    # joint: post-norm and projection of every token, so that images and texts have one length
    # without a layer the paper does not name | width: post-norm only, and a linear layer before
    # cosines. Our reading is joint.
    "token_space": "joint",
    # Table II: both | local (LSI alone: F_V is the unit's own feature, no GD loss) | global (GSD
    # alone: units are linear maps of the class token).
    "branches": "both",
    # Table VI: attention (Eq. 2 and 3) | mean | max, of a unit's tokens.
    "pooling": "attention",
    # Hidden width of the MLP that scores tokens; one for each unit, since units 1, 2 and 4 see the
    # same landmarks.
    "pooling_width": 128,
    # A linear map for each unit after pooling; not in the paper.
    "has_unit_projection": False,
    # Table VII: gda (Eq. 4 to 6) | cat_mlp | add_mlp, what all units have in common.
    "fusion": "gda",
    # incoming | outgoing | flatten: readings of FC in Eq. 5, see `attention.py`.
    "fc_mode": "incoming",
    # Hidden width of each unit's classifier.
    "head_width": 256,
    # Before the classifier's linear layers, in training. Not in the paper.
    "dropout_rate": 0.0,
    # Weights of the contrastive and of the GD loss; the paper takes 0.6 and 1.0 on CASME II, 1.0
    # and 0.6 on SAMM (Tables IV and V).
    "alpha": 0.6,
    "beta": 1.0,
    # multi_hot (Eq. 8 as printed) | normalised: what W_d should be.
    "gd_target": "multi_hot",
    # Table VIII: none | global (the class token with all sentences joined) | diagonal (a unit at a
    # time, the paper's "local") | bce, softmax_multihot, softmax_normalised: readings of the
    # cross-entropy between LM and M, see `losses.py`. softmax_normalised is diagonal.
    "contrast": "bce",
    # Factor on the cosines: the paper names no temperature, and reports texts that end up opposite
    # to each other, which only a factor near 1 asks for. CLIP's is 100.
    "contrast_scale": 1.0,
    "is_contrast_scale_learnt": False,
    # Eq. 13: combinations (each unit with its own sentence, as trained) | sentence (one text an
    # emotion's units: outside of what was trained).
    "mer_text": "combinations",
    # JSON file with other sentences: {"4": {"negative": "...", "positive": "..."}}.
    "prompts_file": "",
    # CLIP's list of merges, for sentences that do not ship with the package. Empty: the installed
    # open_clip_torch wheel.
    "merges_file": "",
    # What the network computes in; parameters, attention weights, logits and losses are float32.
    "dtype": "float32",
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": _PAPER,
    # The weights of Tables IV and V for SAMM's four units.
    "paper_samm": {**_PAPER, "alpha": 1.0, "beta": 0.6},
    # Small towers trained from nothing, for a laptop: not a CLIP.
    "tiny": {
        **_PAPER,
        "trainable_from": 0,
        "tower_rate": 1.0,
        "patch_px": 8,
        "image_width": 64,
        "image_depth": 2,
        "image_heads": 4,
        "text_width": 32,
        "text_depth": 1,
        "text_heads": 2,
        "mlp_ratio": 2,
        "embed_width": 64,
        "pooling_width": 32,
        "head_width": 64,
    },
}

_CHOICES = {
    "activation": ("", *ACTIVATIONS),
    "token_space": ("joint", "width"),
    "branches": ("both", "local", "global"),
    "pooling": POOLINGS,
    "fusion": ("gda", "cat_mlp", "add_mlp"),
    "fc_mode": FC_MODES,
    "gd_target": GD_TARGETS,
    "contrast": ("none", "global", *CONTRASTS),
    "mer_text": ("combinations", "sentence"),
    "dtype": ("float32", "bfloat16"),
}


def resolve(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of the model: those given, the others from the preset they name (or `paper`).

    Raises:
      ConfigError: an unknown preset, key or choice, or keys that contradict each other.
    """
    given = dict(model_config.items())
    given.pop("name", None)
    preset = given.pop("preset", "paper")
    if preset not in PRESETS:
        raise ConfigError(unknown_name("preset of micro_au_clip", preset, PRESETS))
    for key in given:
        if key not in _PAPER:
            raise ConfigError(unknown_name("key of model micro_au_clip", key, _PAPER))
    config = {**PRESETS[preset], **given}
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise ConfigError(unknown_name(f"model.{key}", config[key], choices))
    if not config["weights"] and (config["trainable_from"] > 0 or not config["train_text"]):
        raise ConfigError(
            f"model.trainable_from={config['trainable_from']} and"
            f" model.train_text={config['train_text']} keep weights as they are, and there are"
            " none: model.weights is empty. Give the path of a CLIP checkpoint"
            " (--config.model.weights=model.safetensors, from"
            " https://huggingface.co/openai/clip-vit-base-patch32), or train small towers from"
            " nothing (model.preset=tiny)."
        )
    return config
