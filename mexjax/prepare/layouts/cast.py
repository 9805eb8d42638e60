"""The synthetic clips that play the parts: few, of every class, some awkward on purpose."""

from __future__ import annotations

import dataclasses
from typing import Any

from mexjax.data.synthetic import TABLES, Plan, flavour, make_plan

NUM_SHORT_FRAMES = 6  # many models sample 8 frames or more
_VALENCES = ("positive", "negative", "surprise", "others")


@dataclasses.dataclass(frozen=True)
class Take:
    """One clip with the numbers that a release gives to its frames.

    Attributes:
      index: place in the plan.
      subject: index of the subject, from 0.
      number: which of the subject's clips, from 0.
      first: number of the plan's frame 0 (the true onset) in the release.
      onset: annotated first frame, in the release's numbers.
      apex: annotated apex, or the midpoint, rounded down, where `has_apex` is false.
      offset: annotated last frame.
      has_apex: whether the sheet tells the apex.
      emotion: word of the emotion table.
      aus: action units shown, ascending.
      held: a unit shown all the time, or None.
      missing: frames between onset and offset whose files are not there.
    """

    index: int
    subject: int
    number: int
    first: int
    onset: int
    apex: int
    offset: int
    has_apex: bool
    emotion: str
    aus: tuple[int, ...]
    held: int | None
    missing: tuple[int, ...]

    def starting(self, onset: int) -> Take:
        """The same clip with its frames renumbered so that the annotated onset is `onset`."""
        by = onset - self.onset
        return dataclasses.replace(
            self,
            first=self.first + by,
            onset=onset,
            apex=self.apex + by,
            offset=self.offset + by,
            missing=tuple(n + by for n in self.missing),
        )


def make_cast(
    layout: str, *, num_clips: int, num_subjects: int, resolution_px: int, seed: int
) -> Plan:
    """Make a small plan with the speed, colour and classes of the set.

    Its classes are about equally frequent. CAS(ME)2 and part C of CAS(ME)3 have no flavour: they
    are drawn like part A, with words for valence as classes.
    """
    changes: dict[str, Any] = {
        "au_counts": (),
        "num_without_au": 0,
        "num_missing_apexes": 0,
        "num_held_aus": num_clips // 4 if layout == "fourd" else 0,
        "num_subjects": num_subjects,
        "resolution_px": resolution_px,
    }
    if layout in ("casme_sq", "casme3c"):
        # The seed differs from part A's, because equal seeds would give equal subjects.
        name, table, shift = "casme3a", "fourd", 500_009 + (layout == "casme3c")
        used = [k for k, word in enumerate(TABLES[table].names) if word in _VALENCES]
    else:
        name, shift = layout, 0
        table = flavour(name).emotion_table
        used = list(range(len(TABLES[table].names)))
    counts = [0] * len(TABLES[table].names)
    for clip in range(num_clips):
        counts[used[clip % len(used)]] += 1
    changes |= {"emotion_table": table, "class_counts": tuple(counts)}
    return make_plan(flavour(name, seed=seed + shift, **changes))


def make_takes(plan: Plan, *, has_apexes: bool, can_lack_apex: bool) -> list[Take]:
    """Make the takes of a plan; the first and the last are awkward.

    The first lacks the file of one frame that is no key frame; the second lacks its apex in the
    sheet; the last is annotated as `NUM_SHORT_FRAMES` frames around the apex.

    Args:
      plan: plan from `make_cast`.
      has_apexes: whether the release annotates apexes.
      can_lack_apex: whether it leaves some out.
    """
    takes: list[Take] = []
    for clip in plan.clips:
        when = clip.timing
        onset, apex, offset = when.onset, when.apex, when.offset
        if clip.index == len(plan.clips) - 1:
            onset, apex = when.rise - 2, when.rise
            offset = onset + NUM_SHORT_FRAMES - 1
        has_apex = has_apexes and not (can_lack_apex and clip.index == 1)
        if not has_apex:
            apex = (onset + offset) // 2
        inner = [n for n in range(onset + 1, offset) if n != apex]
        takes.append(
            Take(
                index=clip.index,
                subject=clip.subject,
                number=sum(other.subject == clip.subject for other in takes),
                first=0,
                onset=onset,
                apex=apex,
                offset=offset,
                has_apex=has_apex,
                emotion=clip.emotion,
                aus=clip.aus,
                held=clip.held,
                missing=(inner[len(inner) // 2],) if clip.index == 0 else (),
            )
        )
    return takes
