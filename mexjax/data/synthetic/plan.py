"""Everything about a dataset except its pixels: who shows what, when and how strongly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mexjax.data.synthetic import action_units, timing
from mexjax.data.synthetic.config import SyntheticConfig
from mexjax.data.synthetic.distractors import Motion, draw_motion
from mexjax.data.synthetic.emotions import AUS, TABLES, AuSet
from mexjax.data.synthetic.identity import Identity, draw_identity
from mexjax.data.synthetic.light import Scene, draw_scene
from mexjax.data.synthetic.sets import assign_sets
from mexjax.data.synthetic.streams import stream

MIN_CLIPS_PER_SUBJECT = 6
_OTHER_SIDE = 0.15  # share of a one-sided action unit that its other side shows


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """One clip.

    Attributes:
      index: place in the plan, which seeds everything of this clip.
      subject: index of the identity.
      name: `<subject>_<number>`, unique in the dataset.
      label: index into the emotion table.
      emotion: name of that class.
      aus: action units as a coder would note them, ascending.
      spurious: a unit that shows although no label names it, or None.
      held: a unit that is shown all the time, noted as `(k)`, or None.
      timing: true and annotated key frames.
      has_apex: True if an annotator gave an apex.
      peak: f64[12, 2], intensity at the apex of each unit at the image's left and right.
      lag: f64[12], frames by which each unit follows the main one.
      rest: f64[12], intensity held over the whole clip, both sides.
      motion: distractors.
      scene: light and background.
    """

    index: int
    subject: int
    name: str
    label: int
    emotion: str
    aus: AuSet
    spurious: int | None
    held: int | None
    timing: timing.Timing
    has_apex: bool
    peak: np.ndarray
    lag: np.ndarray
    rest: np.ndarray
    motion: Motion
    scene: Scene


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A dataset before it is drawn: settings, subjects and clips (by subject, then number)."""

    config: SyntheticConfig
    identities: tuple[Identity, ...]
    clips: tuple[Clip, ...]


def make_plan(config: SyntheticConfig) -> Plan:
    """Decide everything about a dataset without drawing a pixel (milliseconds).

    Labels are counted exactly and dealt to subjects at random, so that nothing about a subject
    tells the class.
    """
    rng = stream(config.seed, "plan")
    labels = rng.permutation(np.repeat(np.arange(len(class_counts(config))), class_counts(config)))
    per_subject = _clips_per_subject(rng, config.num_subjects, config.num_clips)
    subjects = np.repeat(np.arange(config.num_subjects), per_subject)
    numbers = np.concatenate([np.arange(n) for n in per_subject])
    sets = assign_sets(config, labels)
    picks = stream(config.seed, "plan", 1)
    no_apex = set(picks.permutation(config.num_clips)[: config.num_missing_apexes].tolist())
    held = set(picks.permutation(config.num_clips)[: config.num_held_aus].tolist())
    identities = tuple(
        draw_identity(config.seed, i, config.habit) for i in range(config.num_subjects)
    )
    clips = tuple(
        _draw_clip(
            config,
            index=i,
            identity=identities[subjects[i]],
            name=f"{subjects[i] + 1:02d}_{numbers[i] + 1:03d}",
            label=int(labels[i]),
            aus=sets[i],
            has_apex=i not in no_apex and config.apex_rule == "annotated",
            has_held=i in held,
        )
        for i in range(config.num_clips)
    )
    return Plan(config, identities, clips)


def class_counts(config: SyntheticConfig) -> list[int]:
    """Clips of each class: as configured, or the table's priors rounded to the total."""
    if config.class_counts:
        return list(config.class_counts)
    return _round_to_total(np.array(TABLES[config.emotion_table].priors), config.num_clips)


def _round_to_total(shares: np.ndarray, total: int) -> list[int]:
    """Whole numbers proportional to `shares` that sum to `total` (largest remainder)."""
    exact = shares / shares.sum() * total
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts.tolist()


def _clips_per_subject(rng: np.random.Generator, num_subjects: int, num_clips: int) -> np.ndarray:
    counts = np.array(_round_to_total(rng.uniform(0.5, 1.5, num_subjects), num_clips))
    least = min(MIN_CLIPS_PER_SUBJECT, num_clips // num_subjects)
    while counts.min() < least:
        counts[counts.argmin()] += 1
        counts[counts.argmax()] -= 1
    return counts


def _draw_clip(
    config: SyntheticConfig,
    *,
    index: int,
    identity: Identity,
    name: str,
    label: int,
    aus: AuSet,
    has_apex: bool,
    has_held: bool,
) -> Clip:
    rng = stream(config.seed, "clip", index)
    when = timing.draw(
        rng,
        fps=config.fps,
        rise_s=config.rise_s,
        rise_cv=config.rise_cv,
        long_probability=config.long_probability,
        annotation_error=config.annotation_error,
        offset_error_factor=config.offset_error_factor,
    )
    if not has_apex:
        when = dataclasses.replace(when, apex=(when.onset + when.offset) // 2)
    # The number of draws is fixed, so that the label does not move the clip's other draws.
    clip_level = rng.uniform(0.55, 1.15)
    per_unit = np.exp(rng.normal(0, 0.15, len(AUS)))
    lag = 0.10 * rng.standard_normal(len(AUS)) * when.rise
    is_unilateral = rng.random() < config.unilateral_probability
    weaker_side = int(rng.integers(2))
    is_spurious = rng.random() < config.spurious_probability
    spurious_intensity = rng.uniform(0.3, 0.6)
    extra = int(rng.choice([au for au in AUS if au not in aus]))
    rest = np.zeros(len(AUS))
    resting = rng.choice(len(AUS), 3, replace=False)
    rest[resting] = np.abs(rng.normal(0, 1, 3)) * config.rest_expression / 2
    held_au = int(rng.choice([au for au in AUS if au not in (*aus, extra)]))

    strength = np.zeros(len(AUS))
    for au in aus:
        strength[action_units.INDEX[au]] = clip_level * per_unit[action_units.INDEX[au]]
    if aus:
        lag[action_units.INDEX[action_units.main_unit(aus)]] = 0.0
    if is_spurious:
        strength[action_units.INDEX[extra]] = spurious_intensity
    if has_held:
        rest[action_units.INDEX[held_au]] = 0.6
    sides = np.stack([1 + identity.au_asymmetry, 1 - identity.au_asymmetry], axis=1)
    if is_unilateral:
        for au in action_units.ONE_SIDED:
            sides[action_units.INDEX[au], weaker_side] *= _OTHER_SIDE
    peak = config.amplitude * (strength * identity.au_gain)[:, None] * sides
    return Clip(
        index=index,
        subject=identity.key[1],
        name=name,
        label=label,
        emotion=TABLES[config.emotion_table].names[label],
        aus=tuple(sorted(aus)),
        spurious=extra if is_spurious else None,
        held=held_au if has_held else None,
        timing=when,
        has_apex=has_apex,
        peak=peak,
        lag=lag,
        rest=rest,
        motion=draw_motion(config, index, when.num_frames),
        scene=draw_scene(config.seed, index),
    )


def with_only(plan: Plan, index: int, units: Mapping[int, float]) -> Plan:
    """A plan of one clip that shows the given action units at the given intensities alone.

    Subject, pose, light and timing are those of clip `index`; both sides move alike and
    together, without the subject's habits in gain and asymmetry, from a face at rest.

    Args:
      plan: any plan.
      index: number of the clip in it.
      units: intensity at the apex by action unit; empty for a neutral clip.

    Returns:
      A plan whose only clip, number 0, has the same frames and random streams as the original.
    """
    peak = np.zeros((len(AUS), 2))
    for au, strength in units.items():
        peak[action_units.INDEX[au]] = strength
    clip = dataclasses.replace(
        plan.clips[index],
        aus=tuple(sorted(units)),
        spurious=None,
        held=None,
        peak=peak,
        lag=np.zeros(len(AUS)),
        rest=np.zeros(len(AUS)),
    )
    return Plan(plan.config, plan.identities, (clip,))


def unit_weights(clip: Clip, frames: np.ndarray, spikiness: float) -> np.ndarray:
    """f64[T, 12, 2]: intensity of each action unit and side at each frame, rest not included."""
    lagged = np.asarray(frames, float)[:, None] - clip.lag
    curve = timing.intensity(lagged, clip.timing, spikiness)
    return curve[:, :, None] * clip.peak
