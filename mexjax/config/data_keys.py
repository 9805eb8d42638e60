"""Configuration keys of `data.*`: which clips, and what of them the network sees."""

from __future__ import annotations

from mexjax.config.conditions import When
from mexjax.config.key import Key, share

MOST_PX = 4096  # side of an image
_RESELECTED = When("data.key_frames.choice", ("reselected",))
_SETS = When("data.name", ("synthetic_sets",))
_FLOW_IMAGE = When("data.view", ("flow_image",))
_MAGNET = When("data.magnify", ("magnet",))

DATA_KEYS: dict[str, Key] = {
    "data.name": Key(
        "synthetic",
        "The source of clips: `synthetic` is the embedded dataset, `synthetic_sets` are several"
        " embedded ones, `prepared` is a folder that `mexjax prepare` wrote.",
        choices=("prepared", "synthetic", "synthetic_sets"),
    ),
    "data.root": Key(
        "",
        "Folder that `mexjax prepare` wrote; embedded datasets need none.",
        is_path=True,
    ),
    "data.cache": Key(
        "",
        "Folder for the views of prepared clips (arrays that are computed once); empty: the"
        " prepared folder, or `~/.cache/mexjax/views` where that cannot be written.",
        is_path=True,
    ),
    "data.datasets": Key(
        (),
        "Only these datasets of a prepared folder, for example `casme2,samm`; empty: all.",
    ),
    "data.sampling": Key(
        "linspace",
        "The rule that takes frames of a clip with data.view=uniform; used with data.name=prepared"
        " and synthetic_sets (mexjax/data/sampling.py).",
        choices=("linspace", "floor_stride", "stride", "segment"),
        acts=(When("data.name", ("prepared", "synthetic_sets")), When("data.view", ("uniform",))),
    ),
    "data.view": Key(
        "uniform",
        "The part of a clip that the network sees: `uniform` is num_frames frames from onset to"
        " offset, `key_frames` is onset, apex and offset (num_frames=3), `flow_image` is the motion"
        " from onset to apex as a colour image (num_frames=1, is_color=True).",
        choices=("uniform", "key_frames", "flow_image"),
    ),
    "data.key_frames.choice": Key(
        "annotated",
        "The key frames that data.view=key_frames uses: `annotated`, `reselected` (near the"
        " annotation, where the face differs most, by the keys below), `fft_apex` (the apex by a"
        " 3-D Fourier transform) or `true` (known for the embedded dataset only).",
        choices=("annotated", "reselected", "fft_apex", "true"),
    ),
    "data.key_frames.splits": Key(
        "train",
        "The clips that get that choice: `train` leaves those of evaluation as annotated.",
        choices=("train", "all"),
        acts=(When("data.key_frames.choice", ("reselected", "fft_apex", "true")),),
    ),
    "data.key_frames.window": Key(
        "inward",
        "The window in which key frames are searched (mexjax/data/keyframes.py).",
        choices=("inward", "eq2", "alg1", "apex"),
        acts=(_RESELECTED,),
    ),
    "data.key_frames.lambda_rise": share(
        0.1,
        "Key frames are searched so far from onset and apex, as a share of the rise.",
        _RESELECTED,
    ),
    "data.key_frames.lambda_fall": share(
        0.1, "Key frames are searched so far from the offset, as a share of the fall.", _RESELECTED
    ),
    "data.key_frames.difference": Key(
        "signed",
        "The comparison of two frames: `signed`, `uint8_wrap` (as one released code subtracts) or"
        " `same_light` (frames brought to one mean).",
        choices=("signed", "uint8_wrap", "same_light"),
        acts=(_RESELECTED,),
    ),
    "data.control": Key(
        "none",
        "A control run that must fail: `static` makes every frame the onset, `shuffled_labels`"
        " gives clips the labels of others.",
        choices=("none", "static", "shuffled_labels"),
    ),
    "data.center": Key(
        "none",
        "The value subtracted from each frame: `none` is 0.5, the middle of the range; `imagenet`"
        " is the mean of photographs by channel; `onset` is the first frame; `clip_mean` is the"
        " mean in time, so that motion is left.",
        choices=("none", "imagenet", "onset", "clip_mean"),
    ),
    "data.num_frames": Key(8, "Frames of a clip.", "frames", least=1, most=4096),
    "data.image_size_px": Key(
        64,
        "Side of the square face image that is kept on the device.",
        "px",
        least=8,
        most=MOST_PX,
    ),
    "data.is_color": Key(False, "True: three channels. False: one, luma."),
    "data.magnify": Key(
        "none",
        "Motion relative to the onset is made larger before anything else: `linear`, `phase`,"
        " `magnet` (learned, see magnify_weights) or `flow_scale` (the flow itself, with"
        " data.view=flow_image).",
        choices=("none", "linear", "phase", "magnet", "flow_scale"),
    ),
    "data.magnify_factor": Key(
        3.0,
        "Magnified displacement over the real one.",
        least=0.01,
        most=1000,
        acts=(When("data.magnify", ("linear", "phase", "magnet", "flow_scale")),),
    ),
    "data.magnify_weights": Key(
        "", "Checkpoint file for data.magnify=magnet.", acts=(_MAGNET,), is_path=True
    ),
    "data.magnify_gain": Key(
        "port",
        "The meaning of the factor for data.magnify=magnet (mexjax/nn/magnet.py).",
        choices=("port", "official"),
        acts=(_MAGNET,),
    ),
    "data.flow_method": Key(
        "dis",
        "The method of optical flow (mexjax/ops/flow.py).",
        choices=("dis", "farneback", "tvl1"),
        acts=(When("data.view", ("flow_image",), instead=When("model.feature", ("flow",))),),
    ),
    "data.flow_style": Key(
        "magnitude",
        "Third channel of a flow image: `magnitude` or `strain`; `hsv` draws direction as hue.",
        choices=("magnitude", "strain", "hsv"),
        acts=(_FLOW_IMAGE,),
    ),
    "data.is_flow_scale_fixed": Key(
        False,
        "True: one scale for the flow images of all clips. False: each clip has its own.",
        acts=(_FLOW_IMAGE,),
    ),
    "data.may_mix_landmarks": Key(
        False, "True: landmarks that were found in several ways may be used together."
    ),
    "data.flow_source_px": Key(
        128,
        "Side of the embedded frames that flow is computed on.",
        "px",
        least=8,
        most=MOST_PX,
        acts=(When("data.name", ("synthetic",)), _FLOW_IMAGE),
    ),
    "data.split_scale": Key(
        "none",
        "Frames are reduced by the mean and divided by the maximum of a whole split: `train` takes"
        " both from the training fold, `per_split` takes those of each split, as one released code"
        " does.",
        choices=("none", "train", "per_split"),
    ),
    "data.collection.sets": Key(
        ("casme", "casme2", "samm", "fourd", "mmew", "casme3a"),
        "The embedded sets of data.name=synthetic_sets. Fields of data.synthetic that differ"
        " from their defaults hold for all of them.",
        choices=("casme", "casme2", "samm", "fourd", "mmew", "casme3a"),
        acts=(_SETS,),
    ),
    "data.collection.scale": Key(
        0.25,
        "Clips and subjects of each set over those of the public dataset it imitates.",
        above=0,
        most=1,
        acts=(_SETS,),
    ),
}
