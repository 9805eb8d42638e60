"""Micro-AU CLIP: action units by CLIP on images of optical flow, emotions without emotion labels.

python -m mexjax.main --config=configs/micro_au_clip.py[:variant]

tiny        the default: small towers trained from nothing on the embedded dataset. Not a CLIP: it
            shows that everything works, and says so in its report.
paper       ViT-B/32 with OpenAI's weights, the eight units of CASME II. One flag gives the weights:
            --config.model.weights=model.safetensors
            (https://huggingface.co/openai/clip-vit-base-patch32), two the data:
            --config.data.name=prepared --config.data.root=prepared/casme2
paper_samm  the same with the four units and the loss weights of SAMM.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import common
from mexjax.errors import ConfigError, unknown_name
from mexjax.models.micro_au_clip.options import PRESETS


def get_config(variant: str = "") -> ConfigDict:
    """The card for a variant (a preset of `mexjax.models.micro_au_clip`); the empty one: `tiny`."""
    preset = variant or "tiny"
    presets = PRESETS
    if preset not in presets:
        raise ConfigError(unknown_name("variant of configs/micro_au_clip.py", preset, presets))
    config = common.get_config()
    config.model.name, config.model.preset = "micro_au_clip", preset
    for key, value in dataclasses.asdict(presets[preset]).items():
        if key != "dtype":  # config.dtype is the one key for it
            config.model[key] = value
    config.protocol.task = "au"
    config.protocol.units = "micro_au_samm" if preset == "paper_samm" else "micro_au_casme2"
    config.data.view = "flow_image"
    config.data.num_frames = 1
    config.data.is_color = True
    config.data.magnify = "phase"
    if preset == "tiny":
        _tiny(config)
    else:
        _published(config)
    return config


def _tiny(config: ConfigDict) -> None:
    config.data.image_size_px = 56
    # The embedded motions are large as they are: three times as far is beyond what phases resolve.
    config.data.magnify = "none"
    config.train.num_epochs = 40
    config.train.batch_size = 16
    config.train.optimizer = "adamw"
    config.train.learning_rate = 2e-3
    config.train.schedule = "one_cycle"
    config.train.weight_decay = 1e-2
    config.train.is_update_fused = True
    config.augment.shift_px = 0
    config.eval.every_epochs = 10


def _published(config: ConfigDict) -> None:
    # SGD, 0.001 for what is trained of the towers (model.tower_rate) and 0.01 for the rest, a tenth
    # from epoch 40 on, 80 epochs, batches of 8, seed 1. Momentum is not in the text.
    config.seed = 1
    config.data.image_size_px = 224
    config.data.flow_source_px = 224
    config.train.optimizer = "sgd"
    config.train.momentum = 0.9
    config.train.learning_rate = 0.01
    config.train.schedule = "milestones"
    config.train.milestones = (40,)
    config.train.decay_per_epoch = 0.1
    config.train.num_epochs = 80
    config.train.batch_size = 8
    config.eval.every_epochs = 10
