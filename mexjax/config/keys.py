"""Every configuration key in one table: default, meaning, unit, choices and bounds.

The table makes the base configuration (`defaults`), drives the checks before a run
(`mexjax.config.check_values`) and is the source of `docs/configuration.md`. Keys of
`model.*` are the options of a paper (`mexjax/models/<paper>/options.py`); those of
`data.synthetic.*` are the fields of `mexjax.data.synthetic.SyntheticConfig`.
"""

from __future__ import annotations

import copy

from ml_collections import ConfigDict, FieldReference

from mexjax.config.conditions import When
from mexjax.config.data_keys import DATA_KEYS, MOST_PX
from mexjax.config.key import Key, decay, share

MOST_EPOCHS = 1_000_000
MOST_UPDATES = 10_000_000
MOST_CLIPS = 1_000_000
MOST_FOLDS = 10_000
_UNITS = When("protocol.task", ("au",))
_COLOR = When("data.is_color", (True,))
_ADAM = When("train.optimizer", ("adam", "adamw"))

KEYS: dict[str, Key] = {
    "seed": Key(
        0,
        "Everything random starts from it: initial weights, order of samples, augmentation.",
        least=0,
        most=2**32 - 1,
    ),
    "precision": Key(
        "tf32",
        "The numbers that the network computes with. `tf32`: float32; a GPU rounds the factors of"
        " matrix products and convolutions to TF32, three decimal digits, and adds in float32."
        " `highest`: float32 without that rounding; a CPU computes both alike. `bfloat16`:"
        " activations and products with two decimal digits, in half the memory. Parameters,"
        " statistics, losses and the arithmetic of pixels are float32 in all three.",
        choices=("tf32", "highest", "bfloat16"),
    ),
    "deterministic": Key(
        False,
        "True: a GPU's programs have only operations that give the same bytes every time, by"
        " algorithms that are not chosen by timing them; docs/benchmarks.md says what that costs."
        " Programs of a CPU are so with both values.",
    ),
    "conv": Key(
        "auto",
        "The way to compute convolutions: `auto` takes the choice of measured tables and rules, a"
        " name of `mexjax.ops.conv.LOWERINGS` is taken for every layer that it can compute.",
    ),
    "cpu_heap": Key(
        True,
        "On a CPU the process keeps freed memory, asks for large pages and leaves a hole for the"
        " memory of a step; no number changes (docs/performance.md).",
    ),
    "gpu.graphs": Key(
        "default",
        "The launches that a GPU takes as one CUDA graph; no number changes. `default`: all but"
        " convolutions and loops, as XLA has it. `convolutions`: these too. `epoch`: loops too, so"
        " that an epoch is one launch. The last two were not tried on a device yet.",
        choices=("default", "convolutions", "epoch"),
    ),
    "model.name": Key("", "The paper, which a card sets; `mexjax --list` shows all."),
    "model.preset": Key("", "The variant of the card; on the command line it selects the variant."),
    **DATA_KEYS,
    "protocol.name": Key(
        "loso",
        "The clips that are held out: `loso` is one subject a fold (mexjax/protocol/splits.py"
        " explains each).",
        choices=("loso", "leave_one_dataset_out", "kfold_by_subject", "composite", "cross_dataset"),
    ),
    "protocol.task": Key(
        "emotion",
        "The prediction: `emotion` is one class a clip, `au` is the set of action units present.",
        choices=("emotion", "au"),
    ),
    "protocol.classes": Key(
        5,
        "The emotion classes: a number of them, to which mexjax/protocol/classes.py maps the"
        " emotions of a dataset; such a map by name, like `casme2_5`, for any dataset; `own`, every"
        " emotion word of the table in its order; or words in an order of your own, like"
        " `surprise,happiness,others`.",
        least=2,
        most=1000,
        takes_words=True,
    ),
    "protocol.class_map": Key(
        "",
        "File of lines `word,class` that merges emotion words into classes, in the order of the"
        " file; nothing behind the comma leaves a word out. protocol.classes is then `own`, or"
        " names some of the classes in another order.",
        acts=(When("protocol.task", ("emotion",)),),
        is_path=True,
    ),
    "protocol.units": Key(
        "cd6me",
        "The action units of protocol.task=au: a set of mexjax/protocol/action_units.py by"
        " name, or numbers like `1,2,4,12`.",
        acts=(_UNITS,),
    ),
    "protocol.is_unsure_present": Key(
        False, "True: a unit coded as unsure, like `12?`, counts as present.", acts=(_UNITS,)
    ),
    "protocol.num_splits": Key(
        5,
        "Folds of protocol.name=kfold_by_subject.",
        least=2,
        most=MOST_FOLDS,
        acts=(When("protocol.name", ("kfold_by_subject",)),),
    ),
    "protocol.num_validation_subjects": Key(
        0, "Inner subjects that are held out of each training fold.", least=0, most=MOST_FOLDS
    ),
    "augment.crop_px": Key(
        0,
        "Side of a random crop in training, of a centre crop in evaluation; 0: the whole image."
        " All frames of a clip are augmented alike.",
        "px",
        least=0,
        most=MOST_PX,
    ),
    "augment.shift_px": Key(
        0,
        "Largest random translation in training; edges are repeated.",
        "px",
        least=0,
        most=MOST_PX,
    ),
    "augment.is_flipped": Key(False, "True: clips are mirrored at random in training."),
    "augment.rotation_deg": Key(
        0.0,
        "Largest random rotation in training; edges are repeated.",
        "degrees",
        least=0,
        most=180,
    ),
    "augment.brightness": share(0.0, "Random factor from 1 - x to 1 + x, cut to the range."),
    "augment.contrast": share(0.0, "Random factor from 1 - x to 1 + x, about the mean."),
    "augment.saturation": share(
        0.0, "Random factor from 1 - x to 1 + x; colour images only.", _COLOR
    ),
    "augment.hue": Key(
        0.0,
        "Random turn from -x to x; colour images only.",
        "turns",
        least=0,
        most=0.5,
        acts=(_COLOR,),
    ),
    "augment.gain_std": Key(
        0.0, "Standard deviation of the logarithm of a random contrast.", least=0, most=10
    ),
    "train.num_epochs": Key(
        0,
        "Passes over the training fold; give this or num_steps.",
        "epochs",
        least=0,
        most=MOST_EPOCHS,
    ),
    "train.num_steps": Key(
        0,
        "Optimizer updates of a fold; give this or num_epochs.",
        "updates",
        least=0,
        most=MOST_UPDATES,
    ),
    "train.batch_size": Key(32, "Clips of one update.", "clips", least=1, most=MOST_CLIPS),
    "train.optimizer": Key("adam", "The rule of an update.", choices=("adam", "adamw", "sgd")),
    "train.learning_rate": Key(1e-3, "Peak of the schedule.", above=0, most=1000),
    "train.schedule": Key(
        "constant",
        "The change of the learning rate over the updates of a fold.",
        choices=("constant", "cosine", "one_cycle", "epoch_decay", "milestones"),
    ),
    "train.warmup_fraction": share(
        0.1,
        "Share of the updates with a rising rate; schedule one_cycle.",
        When("train.schedule", ("one_cycle",)),
    ),
    "train.decay_per_epoch": Key(
        1.0,
        "Factor of the rate after each epoch (schedule epoch_decay) or at each milestone.",
        above=0,
        most=10,
        acts=(When("train.schedule", ("epoch_decay", "milestones")),),
    ),
    "train.decay_epochs": Key(
        0,
        "Epochs after which the factor of epoch_decay stays; 0: it never stays.",
        "epochs",
        least=0,
        most=MOST_EPOCHS,
        acts=(When("train.schedule", ("epoch_decay",)),),
    ),
    "train.milestones": Key(
        (),
        "Epochs, counted from 0, from which the factor applies; schedule milestones.",
        "epochs",
        least=0,
        most=MOST_EPOCHS,
        acts=(When("train.schedule", ("milestones",)),),
    ),
    "train.weight_decay": Key(
        0.0, "adam and sgd: L2 in the gradient. adamw: decoupled from it.", least=0, most=1000
    ),
    "train.decays_kernels_only": Key(
        False,
        "True: biases, norms, positions and prototypes are not decayed.",
        acts=(When("train.weight_decay"),),
    ),
    "train.momentum": decay(0.9, "Momentum of sgd.", When("train.optimizer", ("sgd",))),
    "train.beta1": decay(0.9, "Decay of the first moment of adam and adamw.", _ADAM),
    "train.beta2": decay(0.999, "Decay of the second moment of adam and adamw.", _ADAM),
    "train.epsilon": Key(
        1e-8,
        "Added to the root of the second moment of adam, adamw.",
        above=0,
        most=1,
        acts=(_ADAM,),
    ),
    "train.grad_clip_norm": Key(
        0.0,
        "Largest norm of the whole gradient; longer ones are scaled down; 0: off.",
        least=0,
        most=1e9,
    ),
    "train.is_update_fused": Key(
        False,
        "On a CPU, one update over all parameters as a single vector: faster for networks of many"
        " small tensors, slower for large ones. It has no effect on a GPU.",
    ),
    "train.is_frozen_part_cached": Key(
        True,
        "The first part of a network, if it is frozen, is computed once for all folds, provided"
        " that nothing is augmented.",
    ),
    "train.is_remat": Key(
        False, "Activations are computed again in the backward pass: less memory, more time."
    ),
    "train.steps_per_call": Key(
        0,
        "Updates in one compiled call; 0: one on a CPU, an epoch on other devices.",
        "updates",
        least=0,
        most=MOST_UPDATES,
    ),
    "folds.strategy": Key(
        "auto",
        "The way to train folds: `loop` is one after the other, `vmap` is several in one program,"
        " `shard` is vmap on every local device. `auto` is `loop` on a CPU, `vmap` on one GPU and"
        " `shard` on several GPUs.",
        choices=("auto", "loop", "vmap", "shard"),
    ),
    "folds.per_chunk": Key(
        0,
        "Folds in one program on one device; 0: chosen from memory and, on a GPU, so that the work"
        " outweighs the launches.",
        "folds",
        least=0,
        most=MOST_FOLDS,
    ),
    "folds.only": Key((), "Names of the folds to run, for example `synthetic/01`; empty: all."),
    "sweep.seeds": Key(
        (),
        "Seeds that are trained side by side, each as a run of its own; empty: the key seed alone.",
        least=0,
        most=2**32 - 1,
    ),
    "sweep.values": Key(
        ConfigDict(),
        "Values of other keys that are trained side by side: sweep.values.train.learning_rate="
        "1e-3,3e-4 is two settings. Several keys are combined, all with all.",
    ),
    "eval.every_epochs": Key(
        1,
        "Held-out logits are kept each time so many epochs are over, and at the end.",
        "epochs",
        least=1,
        most=MOST_EPOCHS,
    ),
    "eval.batch_size": Key(
        64, "Clips of one call of the evaluation.", "clips", least=1, most=MOST_CLIPS
    ),
    "eval.is_flip_averaged": Key(False, "Logits are the mean over a clip and its mirror image."),
    "eval.keeps_features": Key(
        False,
        "True: large outputs of the network for each held-out clip are kept too (features.npz);"
        " the studies read them.",
        acts=(When("model.name", ("fdp", "gamdss", "tsfmicro"), is_unless=True),),
    ),
    "checkpoint.every_epochs": Key(
        10,
        "Least epochs between checkpoints; 0: only a stopped run saves one.",
        "epochs",
        least=0,
        most=MOST_EPOCHS,
    ),
    "checkpoint.min_seconds": Key(
        60.0,
        "Least time between checkpoints, and from the start of a group of folds. A process that is"
        " killed, not asked to stop, repeats what came after the last checkpoint.",
        "s",
        least=0,
        most=1e9,
    ),
    "report.has_figures": Key(True, "True: the report has figures. False: it has tables only."),
    "report.num_sheet_clips": Key(
        6,
        "Rows of the sheet of dynamic images, which are kept when training ends.",
        "clips",
        least=0,
        most=1000,
    ),
    "report.paper_results": Key(
        ConfigDict(), "Published numbers to print beside ours, by dataset and measure."
    ),
    "has_progress": Key(True, "True: progress is shown on the terminal."),
}


def defaults() -> ConfigDict:
    """The base configuration, unlocked: every key of `KEYS` with its default."""
    config = ConfigDict()
    for name, key in KEYS.items():
        *parents, leaf = name.split(".")
        node = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        default = copy.deepcopy(key.default)
        # A reference of no type lets a card, too, set a word where the default is a number.
        node[leaf] = FieldReference(default, field_type=object) if key.takes_words else default
    return config
