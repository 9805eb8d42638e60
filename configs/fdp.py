"""FDP: fine-grained dynamic perception, by leave-one-subject-out.

python -m mexjax.main --config=configs/fdp.py[:variant]

tiny       the default: a small network on the embedded dataset.
paper      the network the text of the paper describes.
paper_14m  the same without global aggregators: what its parameter counts imply.
official   the network, data treatment and training of the released code, quirks included.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import common
from mexjax.errors import ConfigError, unknown_name
from mexjax.models.fdp.options import PRESETS


def get_config(variant: str = "") -> ConfigDict:
    """The card for a variant (a preset of `mexjax.models.fdp`); the empty one is `tiny`."""
    preset = variant or "tiny"
    if preset not in PRESETS:
        raise ConfigError(unknown_name("variant of configs/fdp.py", preset, PRESETS))
    config = common.get_config()
    config.model.name, config.model.preset = "fdp", preset
    for key, value in dataclasses.asdict(PRESETS[preset]).items():
        if key != "dtype":  # config.dtype is the one key for it
            config.model[key] = value
    if preset == "tiny":
        _tiny(config)
    else:
        _published(config)
    if preset == "official":
        _official(config)
    return config


def _tiny(config: ConfigDict) -> None:
    # A network that sees single raw frames does not find sub-pixel motion from 180 clips.
    config.data.center = "clip_mean"
    config.train.num_epochs = 24
    config.train.batch_size = 16
    config.train.optimizer = "adamw"
    config.train.learning_rate = 3e-3
    config.train.schedule = "one_cycle"
    config.train.weight_decay = 2e-2
    config.augment.shift_px = 2
    config.augment.is_flipped = True
    config.eval.every_epochs = 4
    config.eval.is_flip_averaged = True
    config.train.is_update_fused = True


def _published(config: ConfigDict) -> None:
    # Section 4 of the paper: Adam, 1e-4, batch 36; 72 px aligned faces, 64 px crops, flips. The
    # decay and the number of updates are those of the released code, the paper gives none.
    config.train.optimizer = "adam"
    config.train.learning_rate = 1e-4
    config.train.weight_decay = 1e-3
    config.train.batch_size = 36
    config.train.num_steps = 500
    config.data.image_size_px = 72
    config.augment.crop_px = 64
    config.augment.is_flipped = True


def _official(config: ConfigDict) -> None:
    config.train.num_steps = 501  # the loop stops when its counter exceeds 500
    config.data.image_size_px = 64
    config.augment.crop_px = 0
    config.augment.is_flipped = False
    config.data.split_scale = "per_split"
