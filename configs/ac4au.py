"""AC4AU: action units by leaving one dataset out (CD6ME).

    mexjax --config=ac4au[:variant]
    python -m mexjax.main --config=configs/ac4au.py[:variant]

On six small embedded datasets `tiny` takes four and a half minutes on two CPU cores and reaches a
mean F1 of 0.29, where saying that every unit is present gives 0.18
(benchmarks/results/2026-11-29-cpu2-79766b8-ac4au.json).

Variants:
  tiny     the default: a small network on six small embedded datasets.
  paper    the network of the paper from pre-trained MobileFaceNet weights, on prepared datasets:
           --config.data.root=FOLDER --config.model.pretrained=FILE
  scratch  the same without pre-training.
"""

from ml_collections import ConfigDict

from mexjax.models.card import start

# F1 in percent over the 2031 held-out clips of the six sets: the mean, and each action unit.
PAPER = {
    "f1": 40.508, "AU1": 58.9, "AU2": 57.1, "AU4": 77.2, "AU5": 44.8, "AU6": 6.8, "AU7": 34.2,
    "AU9": 30.9, "AU10": 25.0, "AU12": 34.5, "AU14": 47.5, "AU15": 36.7, "AU17": 32.5,
}  # fmt: skip


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of a variant; the empty one is `tiny`."""
    config = start("ac4au", variant)
    config.protocol.name = "leave_one_dataset_out"
    config.protocol.task = "au"
    config.protocol.units = "cd6me"
    config.protocol.is_unsure_present = True  # as the benchmark counts
    config.data.is_color = True
    config.augment.is_flipped = True  # units do not tell sides
    config.eval.keeps_features = True
    if config.model.preset == "tiny":
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
    # The text gives kinds of augmentation without strengths, and nothing about the training. These
    # are small strengths, and the training of the benchmark on its own colour clips.
    config.augment.rotation_deg = 10.0
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    config.augment.saturation = 0.2
    config.augment.hue = 0.02
    config.train.num_epochs = 100
    config.train.batch_size = 32
    config.train.optimizer = "adam"  # its L2 is in the gradient, not decoupled
    config.train.learning_rate = 1e-4
    config.train.weight_decay = 1e-3
    config.train.decays_kernels_only = True
    config.eval.every_epochs = 10
    config.report.paper_results = ConfigDict({"prepared_12": ConfigDict(PAPER)})
