"""Views: the arrays that models take, each a pure function of one prepared clip.

    uniform          frames spread over the clip          u8[T, S, S, C]   FDP, AC4AU
    key_frames       onset, apex, offset                  u8[3, S, S, C]   TSFmicro, GAMDSS
    flow_image       flow as an image in [0, 1]           f32[S, S, 3]     Micro-AU CLIP
    landmark_tokens  image patches of each action unit    i32[A, 6]        Micro-AU CLIP

S is `size_px`, C is 3 with `is_color` and 1 without. Shapes and dtypes depend on the parameters
only. Motion is magnified, and flow computed, at the resolution as stored; then it is resized.
`compute_view` makes a view of a whole prepared dataset, once, and keeps it on disk.

A view is asked for by name with plain parameters, which configuration files and the cache can hold:
those of the functions below, with the fields of a `Magnifier` (magnify, factor, weights, gain) and
of a `Rule` (window, lambda_rise, lambda_fall, difference) in the place of the objects.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mexjax.data import keyframes, view_cache
from mexjax.data.clip_frames import ClipFrames
from mexjax.data.landmark_tokens import landmark_tokens
from mexjax.data.sampling import sample_indices
from mexjax.data.view_frames import (
    Magnifier,
    annotated,
    chosen_places,
    magnified,
    pair_places,
    resized,
    with_channels,
)
from mexjax.errors import ConfigError, unknown_name
from mexjax.machine import num_cores
from mexjax.ops import flow as optical

_NO_MAGNIFIER, _PHASE = Magnifier(), Magnifier("phase")
_RULE = keyframes.Rule()
# The parameters of these fields have other names than the fields.
_PARAMETER_NAMES: dict[tuple[type, str], str] = {(Magnifier, "method"): "magnify"}
_FIXED_SCALE = 4.0 / 3.0  # px of a 224 px image and factor 1 that fill a flow image's range


def uniform(
    clip: ClipFrames,
    *,
    num_frames: int = 8,
    rule: str = "linspace",
    offset: float = 0.5,
    short: str = "replicate",
    size_px: int = 112,
    is_color: bool = True,
    magnifier: Magnifier = _NO_MAGNIFIER,
) -> np.ndarray:
    """u8[T, S, S, C]: `num_frames` of the frames from onset to offset, see `sampling`.

    Frames that the release lacks are skipped, not filled in: the rule counts those that exist.
    Each frame may be magnified against the onset.
    """
    places = annotated(clip)
    indices = sample_indices(len(places), num_frames, rule=rule, offset=offset, short=short)
    frames = with_channels(clip.frames[places[indices]], is_color)
    onset = with_channels(clip.frames[places[:1]], is_color)[0]
    return resized(magnified(onset, frames, magnifier), size_px)


def key_frames(
    clip: ClipFrames,
    *,
    choice: str = "annotated",
    rule: keyframes.Rule = _RULE,
    size_px: int = 224,
    is_color: bool = True,
    magnifier: Magnifier = _NO_MAGNIFIER,
) -> np.ndarray:
    """u8[3, S, S, C]: onset, apex, offset; only the apex is magnified.

    `choice` is annotated, reselected (by `rule`, see `keyframes`; frames as stored are compared) or
    fft_apex (see `apex_spotting`).
    """
    frames = with_channels(clip.frames[list(chosen_places(clip, choice, rule, is_color))], is_color)
    apex = magnified(frames[0], frames[1:2], magnifier)
    return resized(np.concatenate([frames[:1], apex, frames[2:]]), size_px)


def flow_image(
    clip: ClipFrames,
    *,
    part: str = "rise",
    method: str = "dis",
    style: str = "magnitude",
    is_scale_fixed: bool = False,
    size_px: int = 224,
    magnifier: Magnifier = _PHASE,
) -> np.ndarray:
    """f32[S, S, 3] in [0, 1]: the flow as `mexjax.ops.flow.flow_image` draws it.

    Each image is scaled by itself, or with `is_scale_fixed` all alike: 4 px of a 224 px image fill
    the range at factor 3, proportionally less without magnification and in smaller images. The
    defaults are our reading of Micro-AU CLIP. Magnification by `flow_scale` multiplies the flow,
    which needs a fixed scale to be seen.
    """
    field = _flow_field(clip, part, method, size_px, magnifier)
    scale = None
    if is_scale_fixed:
        factor = 1.0 if magnifier.method == "none" else magnifier.factor
        scale = _FIXED_SCALE * factor * size_px / 224
    return optical.flow_image(field, style=style, scale_px=scale)


def _flow_field(
    clip: ClipFrames, part: str, method: str, size_px: int, magnifier: Magnifier
) -> np.ndarray:
    """f32[S, S, 2]: flow from onset (`rise`) or offset (`fall`) to the magnified apex, px."""
    pair = with_channels(clip.frames[list(pair_places(clip, part))], False)
    apex = magnified(pair[0], pair[1:], magnifier)[0]
    field = optical.dense_flow(pair[0][..., 0], apex[..., 0], method=method)
    field = optical.resize_flow(field, (size_px, size_px))
    return field * np.float32(magnifier.factor) if magnifier.method == "flow_scale" else field


@dataclasses.dataclass(frozen=True)
class View:
    """A view and its parameters.

    Attributes:
      function: `(clip, *, ...) -> np.ndarray`; the default of each argument has its type.
      version: counts changes of what the function computes, so that old caches are not read.
    """

    function: Callable[..., np.ndarray]
    version: int = 1

    def __call__(self, clip: ClipFrames, **params: Any) -> np.ndarray:
        """The view of one clip; parameters as `complete` takes them."""
        return self.bind(params)(clip)

    def bind(self, params: Mapping[str, Any]) -> Callable[[ClipFrames], np.ndarray]:
        """The view with its parameters, checked, as a function of clips.

        A network that magnifies is read once for all clips of the function.

        Raises:
          ConfigError: as `complete`, or a value that the magnifier or the rule does not allow.
        """
        complete = self.complete(params)
        arguments = {}
        for name, default in self._defaults().items():
            if dataclasses.is_dataclass(default) and not isinstance(default, type):
                fields = _parameters(name, default)
                values = {field: complete[key] for key, (field, _) in fields.items()}
                arguments[name] = dataclasses.replace(default, **values)
            else:
                arguments[name] = complete[name]
        return functools.partial(self.function, **arguments)

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters by name: those given, checked, and the defaults of the others.

        Raises:
          ConfigError: an unknown parameter, or a value of another type than its default's.
        """
        defaults = {
            key: value
            for name, default in self._defaults().items()
            for key, (_, value) in _parameters(name, default).items()
        }
        complete = dict(defaults)
        for name, value in params.items():
            if name not in defaults:
                view = self.function.__name__
                raise ConfigError(unknown_name(f"parameter of the view {view}", name, defaults))
            complete[name] = _of_type(name, value, defaults[name])
        return complete

    def _defaults(self) -> dict[str, Any]:
        """The default of each keyword argument of the function."""
        arguments = inspect.signature(self.function).parameters.values()
        return {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}


def _parameters(name: str, default: Any) -> dict[str, tuple[str, Any]]:
    """Field and default by parameter: those of a dataclass, or the argument itself."""
    if not dataclasses.is_dataclass(default) or isinstance(default, type):
        return {name: (name, default)}
    return {
        _PARAMETER_NAMES.get((type(default), field.name), field.name): (
            field.name,
            getattr(default, field.name),
        )
        for field in dataclasses.fields(default)
    }


def _of_type(name: str, value: Any, default: Any) -> Any:
    """`value` as the type of `default`; ConfigError if it is another."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        if value and all(type(item) is type(default[0]) for item in value):
            return tuple(value)
    elif isinstance(default, float) and type(value) in (int, float):
        return float(value)
    elif type(value) is type(default):
        return value
    raise ConfigError(
        f"The view's parameter {name} must be like {default!r}, found {value!r}"
        f" ({type(value).__name__})."
    )


VIEWS: dict[str, View] = {
    "uniform": View(uniform),
    "key_frames": View(key_frames),
    "flow_image": View(flow_image),
    "landmark_tokens": View(landmark_tokens),
}


def compute_view(
    root: str | Path,
    manifest: pd.DataFrame,
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    cache: str | Path = "",
    progress: view_cache.Progress | None = None,
    num_workers: int | None = None,
) -> np.ndarray:
    """A view of every clip of a prepared dataset, computed once and then read from disk.

    It is kept in `root/views/<name>-<hash>/`. The hash covers the parameters, the view's version
    and the clips (their bytes and key frames), so nothing outdated is ever read, and a digest tells
    damage.

    Args:
      root: folder of the prepared dataset.
      manifest: N rows of the manifest.
      name: a key of `VIEWS`.
      params: parameters of the view; the others have their defaults.
      cache: folder that holds views in place of `root`; empty: `root`, or a folder of the user
        where `root` cannot be written.
      progress: called with (clips done, clips in all).
      num_workers: threads; None: one a core. The result does not depend on it.

    Returns:
      [N, ...], read-only and mapped from the file: what is not touched is not read.

    Raises:
      ConfigError: an unknown view or parameter.
      DataError: clips that cannot be read or do not allow the view, or a folder that cannot be
        written.
    """
    from mexjax.data import records  # it takes a second to import, and views alone do not need it

    if name not in VIEWS:
        raise ConfigError(unknown_name("view", name, VIEWS))
    view = VIEWS[name]
    complete, compute = view.complete(params or {}), view.bind(params or {})
    about: dict[str, Any] = {"version": view.version, "params": complete}
    if complete.get("weights"):
        about["weights_sha256"] = _sha256(Path(complete["weights"]))
    return view_cache.cached(
        Path(root),
        manifest,
        name,
        about,
        lambda row: compute(records.load_clip(root, row)),
        cache=cache,
        progress=progress,
        num_workers=num_workers or num_cores(),
    )


def _sha256(path: Path) -> str:
    """SHA-256 of a file of weights, so that changed weights give a new cache entry."""
    from mexjax.interop.files import weights_digest  # it brings Flax

    try:
        return weights_digest(path)
    except OSError as error:
        raise ConfigError(f"Cannot read the weights {path}: {error.strerror or error}.") from None
