"""AC4AU: action units by leaving one dataset out (CD6ME).

python -m mexjax.main --config=configs/ac4au.py[:variant]

tiny     the default: a small network on six small embedded datasets.
paper    the network of the paper from pre-trained MobileFaceNet weights, on prepared datasets:
         --config.data.root=FOLDER --config.model.pretrained=FILE
scratch  the same without pre-training.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import common
from mexjax.errors import ConfigError, unknown_name
from mexjax.models.ac4au.options import PRESETS

# Per action unit and their mean, F1 in percent over the 2031 held-out clips of the six sets.
PAPER = {
    "f1": 40.508, "AU1": 58.9, "AU2": 57.1, "AU4": 77.2, "AU5": 44.8, "AU6": 6.8, "AU7": 34.2,
    "AU9": 30.9, "AU10": 25.0, "AU12": 34.5, "AU14": 47.5, "AU15": 36.7, "AU17": 32.5,
}  # fmt: skip


def get_config(variant: str = "") -> ConfigDict:
    """The card for a variant (a preset of `mexjax.models.ac4au`); the empty one is `tiny`."""
    preset = variant or "tiny"
    if preset not in PRESETS:
        raise ConfigError(unknown_name("variant of configs/ac4au.py", preset, PRESETS))
    config = common.get_config()
    config.model.name, config.model.preset = "ac4au", preset
    for key, value in dataclasses.asdict(PRESETS[preset]).items():
        if key != "dtype":  # config.dtype is the one key for it
            config.model[key] = value
    config.protocol.name = "leave_one_dataset_out"
    config.protocol.task = "au"
    config.protocol.units = "cd6me"
    config.protocol.is_unsure_present = True  # as the benchmark counts
    config.data.is_color = True
    config.augment.is_flipped = True  # units do not tell sides
    config.eval.keeps_features = True
    if preset == "tiny":
        _tiny(config)
    else:
        _paper(config)
    return config


def _tiny(config: ConfigDict) -> None:
    config.data.name = "synthetic_sets"
    # A network that sees single raw frames does not find sub-pixel motion from 500 clips.
    config.data.center = "clip_mean"
    config.train.num_epochs = 12
    config.train.batch_size = 32
    config.train.optimizer = "adamw"
    config.train.learning_rate = 3e-3
    config.train.schedule = "one_cycle"
    config.train.weight_decay = 2e-2
    config.train.is_update_fused = True
    config.augment.shift_px = 2
    config.eval.every_epochs = 5
    config.eval.is_flip_averaged = True


def _paper(config: ConfigDict) -> None:
    config.data.name = "prepared"
    config.data.image_size_px = 112
    # The text gives kinds of augmentation and no strengths, and nothing of the training. This is
    # how the benchmark trains its own colour clips, and small strengths.
    config.augment.rotation_deg = 10.0
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    config.augment.saturation = 0.2
    config.augment.hue = 0.02
    config.train.num_epochs = 100
    config.train.batch_size = 32
    config.train.optimizer = "adam"  # L2 in the gradient, not decoupled
    config.train.learning_rate = 1e-4
    config.train.weight_decay = 1e-3
    config.train.decays_kernels_only = True
    config.eval.every_epochs = 10
    config.report.paper_results = ConfigDict({"prepared_12": ConfigDict(PAPER)})
