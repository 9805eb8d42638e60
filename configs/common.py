"""Every configuration key with its default, unit and meaning. All recipe cards start here.

Override any of them on the command line: `--config.train.batch_size=16`.
"""

import dataclasses

from ml_collections import ConfigDict

from mexjax.data.synthetic import SyntheticConfig


def get_config() -> ConfigDict:
    """The defaults shared by all recipe cards (unlocked; `load_config` locks)."""
    config = ConfigDict()
    config.seed = 0  # of everything random: initialisation, order of samples, augmentation
    config.dtype = "float32"  # compute type: float32 | bfloat16; parameters stay float32
    # True: on a CPU the process keeps the memory that a step frees for the next one, on large pages
    # (mexjax/cpu/heap.py). False: the allocator is left alone. No number changes.
    config.cpu_heap = True
    config.conv = "auto"  # convolution lowering: auto (measured table) or one name of ops/conv.py

    # The architecture; each paper's keys and presets are documented in mexjax/models/<paper>.py.
    config.model = ConfigDict({"name": "", "preset": ""})

    config.data = data = ConfigDict()
    data.name = "synthetic"  # mexjax.list_datasets() gives the names
    data.root = ""  # folder that python -m mexjax.prepare wrote; the embedded dataset needs none
    data.datasets = ()  # of data.name=prepared: only these, for example ("casme2",); (): all
    # Of data.name=prepared and synthetic_sets: a rule of mexjax/data/sampling.py.
    data.sampling = "linspace"
    # What is seen of a clip: uniform (num_frames of onset to offset) | key_frames (onset, apex and
    # offset as annotated; num_frames=3) | flow_image (motion from onset to apex as a colour image;
    # num_frames=1, is_color=True).
    data.view = "uniform"
    # Of data.view=key_frames.
    data.key_frames = key_frames = ConfigDict()
    # annotated | reselected (near the annotation, where the face differs most; the keys below) |
    # fft_apex (apex by a 3-D Fourier transform) | true (of the embedded dataset).
    key_frames.choice = "annotated"
    key_frames.splits = "train"  # which clips get them: train (others as annotated) | all
    key_frames.window = "inward"  # inward | eq2 | alg1 | apex: where; mexjax/data/keyframes.py
    key_frames.lambda_rise = 0.1  # how far from onset and apex, share of the rise
    key_frames.lambda_fall = 0.1  # how far from the offset, share of the fall
    # signed | uint8_wrap (as one released code subtracts) | same_light (frames of one mean).
    key_frames.difference = "signed"
    data.control = "none"  # none | static (every frame is the onset) | shuffled_labels
    # What is subtracted from each frame: none (0.5, the middle of the range) | imagenet (the mean
    # of photographs, by channel) | onset | clip_mean (in time: motion is left).
    data.center = "none"
    data.num_frames = 8  # frames a clip
    data.image_size_px = 64  # side of the square face image kept on the device
    data.is_color = False  # True: 3 channels, False: 1 (luma)
    # Motion relative to the onset, made larger before anything else: none | linear | phase | magnet
    # (learned; magnify_weights) | flow_scale (the flow itself, of flow_image).
    data.magnify = "none"
    data.magnify_factor = 3.0  # total displacement over the real one
    data.magnify_weights = ""  # of magnet: path of a checkpoint
    data.magnify_gain = "port"  # of magnet: port | official, see mexjax/nn/magnet.py
    data.flow_method = "dis"  # of any optical flow: dis | farneback | tvl1, see mexjax/ops/flow.py
    data.flow_style = "magnitude"  # of flow_image, third channel: magnitude | strain; or hsv
    data.is_flow_scale_fixed = False  # of flow_image: one scale for all clips, not each its own
    data.may_mix_landmarks = False  # True: also landmarks that were found in several ways
    data.flow_source_px = 128  # of the embedded dataset: side of the frames flow is computed on
    # Scalar mean and maximum of a whole split applied after normalisation: none | train (from the
    # training fold, used for both) | per_split (each split its own, as one released code does).
    data.split_scale = "none"
    # Of data.name=synthetic_sets: which sets (mexjax/data/synthetic/collection.py), and the share
    # of the clips and subjects of the public sets they imitate. Fields of data.synthetic that
    # differ from their defaults hold for all of them.
    data.collection = ConfigDict(
        {"sets": ("casme", "casme2", "samm", "fourd", "mmew", "casme3a"), "scale": 0.25}
    )
    # Any field of mexjax.data.synthetic.SyntheticConfig, which documents units; the frame
    # count, resolution and colour follow the three keys above.
    synthetic = dataclasses.asdict(SyntheticConfig())
    for derived in ("num_frames", "resolution_px", "is_color"):
        synthetic.pop(derived)
    data.synthetic = ConfigDict(synthetic)

    config.protocol = protocol = ConfigDict()
    protocol.name = "loso"  # mexjax.protocol.splits documents each
    protocol.task = "emotion"  # emotion: one class a clip | au: action units, present or not
    protocol.classes = 5  # number of emotion classes; the map is in mexjax/protocol/classes.py
    # Of task=au: a set of mexjax/protocol/au_labels.py by name, or numbers: "1,2,4,12".
    protocol.units = "cd6me"
    protocol.is_unsure_present = False  # of task=au: whether a unit coded "12?" counts
    protocol.num_splits = 5  # folds of kfold_by_subject
    protocol.num_validation_subjects = 0  # inner subjects held out of each training fold

    # Normalised in the step, drawn once a clip: all frames of a clip move together.
    config.augment = augment = ConfigDict()
    augment.crop_px = 0  # random crop in training, centre crop in evaluation; 0: whole image
    augment.shift_px = 0  # random translation of at most this many pixels, edges repeated
    augment.is_flipped = False  # random horizontal flip
    augment.rotation_deg = 0.0  # random rotation of at most this, edges repeated
    # Colour jitter; results are cut to what an image can hold, and gray images have no saturation
    # and no hue.
    augment.brightness = 0.0  # factor from 1 - x to 1 + x
    augment.contrast = 0.0  # factor from 1 - x to 1 + x, about the mean
    augment.saturation = 0.0  # factor from 1 - x to 1 + x
    augment.hue = 0.0  # part of a turn from -x to x
    augment.gain_std = 0.0  # standard deviation of the log of a random contrast

    config.train = train = ConfigDict()
    train.num_epochs = 0  # passes over the training fold; give this or num_steps
    train.num_steps = 0  # optimizer updates a fold; give this or num_epochs
    train.batch_size = 32  # clips
    train.optimizer = "adam"  # adam | adamw | sgd
    train.learning_rate = 1e-3  # peak of the schedule
    train.schedule = "constant"  # constant | cosine | one_cycle | epoch_decay | milestones
    train.warmup_fraction = 0.1  # of one_cycle: share of the updates with rising rate
    train.decay_per_epoch = 1.0  # of epoch_decay: factor after each epoch; of milestones: at each
    train.decay_epochs = 0  # of epoch_decay: epochs after which the factor stays; 0: all
    train.milestones = ()  # of milestones: epochs, counted from 0, from which the factor applies
    train.weight_decay = 0.0  # adam, sgd: L2 in the gradient; adamw: decoupled
    # True: no decay of biases, norms, positions and prototypes.
    train.decays_kernels_only = False
    train.momentum = 0.9  # of sgd
    train.beta1 = 0.9  # of adam and adamw
    train.beta2 = 0.999  # of adam and adamw
    train.epsilon = 1e-8  # of adam and adamw
    train.grad_clip_norm = 0.0  # clip the global gradient norm; 0: off
    # One update over all parameters as a single vector: faster for networks of many small tensors,
    # where each tensor's own update costs more to start than to do; slower for large ones.
    train.is_update_fused = False
    # Of networks with a frozen first part: computed once for all folds, if nothing is augmented.
    train.is_frozen_part_cached = True
    train.is_remat = False  # recompute activations in the backward pass: less memory, more time
    train.steps_per_call = 0  # updates in one compiled call; 0: one on CPU, an epoch on others

    config.folds = folds = ConfigDict()
    folds.strategy = "vmap"  # loop | vmap | shard (vmap on every local device)
    folds.per_chunk = 0  # folds in one program on one device; 0: chosen from memory
    folds.only = ()  # names of the folds to run, for example ("synthetic/01",); (): all

    config.eval = evaluation = ConfigDict()
    evaluation.every_epochs = 1  # held-out logits are kept at each of these and at the end
    evaluation.batch_size = 64  # clips
    evaluation.is_flip_averaged = False  # mean of the logits of a clip and of its mirror image

    # Also keep what the network made of each held-out clip at the end (features.npz), where it is
    # large and the model keeps it on request only: for python -m mexjax.study.
    evaluation.keeps_features = False

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every_epochs = 10  # epochs between checkpoints, at least; 0: only when interrupted
    # Seconds between them, at least, and from the start of a group of folds: writing one takes as
    # long as many steps of a small network. A process that is killed, not asked to stop, repeats
    # what came after the last whole checkpoint.
    checkpoint.min_seconds = 60.0

    config.report = report = ConfigDict()
    report.has_figures = True  # False: tables only
    report.num_sheet_clips = 6  # rows of the sheet of dynamic images
    report.paper_results = ConfigDict()  # published numbers to print beside ours
    config.has_progress = True  # progress bar on the terminal
    return config
