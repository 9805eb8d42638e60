"""Micro-AU CLIP: action units by CLIP on images of optical flow, emotions without emotion labels.

    mexjax --config=micro_au_clip[:variant]
    python -m mexjax.main --config=configs/micro_au_clip.py[:variant]

On the embedded dataset `tiny` takes one minute on two CPU cores and reaches a mean F1 of 0.74 to
0.77 over three seeds, where saying that every unit is present gives 0.24
(benchmarks/results/2026-11-29-cpu2-1c6328a-micro_au_clip.json).

Variants:
  tiny        the default: small towers trained from nothing on the embedded dataset. This is not a
              CLIP: it shows that everything works, and its report says so.
  paper       ViT-B/32 with OpenAI's weights, the eight units of CASME II. One flag gives the
              weights: --config.model.weights=model.safetensors
              (https://huggingface.co/openai/clip-vit-base-patch32), two the data:
              --config.data.name=prepared --config.data.root=prepared/casme2
  paper_samm  the same with the four units and the loss weights of SAMM.
"""

from ml_collections import ConfigDict

from mexjax.models.card import start


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of a variant; the empty one is `tiny`."""
    config = start("micro_au_clip", variant)
    preset = config.model.preset
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
    # The embedded motions are large enough: phases cannot resolve motions three times as large.
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
    # The text has SGD, 0.001 for the trained part of the towers (model.tower_rate) and 0.01 for the
    # rest, a tenth from epoch 40 on, 80 epochs, batches of 8 and seed 1, but no momentum.
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
