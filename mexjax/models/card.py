"""The beginning of every recipe card: the defaults with the options of a paper's preset."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from mexjax.config import defaults
from mexjax.data.synthetic import SyntheticConfig
from mexjax.errors import ConfigError, unknown_name
from mexjax.models import get_model

# Fields of SyntheticConfig that follow data.num_frames, data.image_size_px and data.is_color.
_DERIVED = ("num_frames", "resolution_px", "is_color")


def start(name: str, variant: str = "") -> ConfigDict:
    """The configuration that a card fills in.

    Args:
      name: name of the paper, a key of `mexjax.models.MODELS`.
      variant: name of one of the paper's presets; the empty one is `tiny`.

    Returns:
      Every key of `mexjax.config.KEYS` with its default, `data.synthetic` with the fields of
      SyntheticConfig, and `model` with the name, the preset and the options of the preset;
      unlocked.

    Raises:
      ConfigError: an unknown paper or variant.
    """
    presets = get_model(name).presets
    preset = variant or "tiny"
    if preset not in presets:
        raise ConfigError(unknown_name(f"variant of {name}", preset, presets))
    config = defaults()
    fields = dataclasses.asdict(SyntheticConfig())
    config.data.synthetic = ConfigDict({k: v for k, v in fields.items() if k not in _DERIVED})
    config.model.name, config.model.preset = name, preset
    for key, value in dataclasses.asdict(presets[preset]).items():
        if key != "dtype":  # config.precision is the one key for it
            config.model[key] = value
    return config
