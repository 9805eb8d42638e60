"""CASME, CASME II and CAS(ME)2.

Columns and folders are those that the public MEB code reads (Varanka et al., 2023) and, for
CAS(ME)2, those of public spotting code (SOFTNet, MDMD).
"""

from __future__ import annotations

from mexjax.errors import ConfigError
from mexjax.prepare.layouts import notation
from mexjax.prepare.layouts.base import Layout, Release

_CASME_STYLES = (notation.sided, notation.with_unsure, notation.number, notation.spaced)
_CASME2_STYLES = (notation.right_last, notation.number, notation.spaced, notation.sided)
_SQUARE_STYLES = (notation.plain, notation.number, notation.sided)

# A stimulus of CAS(ME)2 has a code, a name in clips and a name in folders.
_STIMULI = (
    ("0101", "disgust1", "disgustingteeth"),
    ("0102", "disgust2", "eatingworms"),
    ("0401", "anger1", "girlcrashing"),
    ("0402", "anger2", "beatingpregnantwoman"),
    ("0502", "happy1", "funnyerrors"),
    ("0503", "happy2", "unnyfarting"),
    ("0505", "happy3", "funnyinnovations"),
    ("0507", "happy4", "climbingthewall"),
    ("0508", "happy5", "funnyfallsroller"),
)
_SQUARE_FOLDERS = (15, 16, *range(19, 28), *range(29, 39), 40)


def write_casme(release: Release) -> Layout:
    """Write CASME: two columns have no name; zeros pad the numbers of the second half only."""
    rows: list[list[object]] = [
        [
            *("Subject", "Filename", None, "OnsetF", "ApexF1", "ApexF2", "OffsetF", None),
            *("Onset", "Total", "AU", "Emotion"),
        ]
    ]
    for i, original in enumerate(release.takes):
        # Numbers go from below 10 or 100 to above: text order is not number order.
        take = original.starting(int(release.rng.integers(4, 9)) if i % 2 else 90)
        subject, clip = take.subject + 1, f"EP{take.number // 2 + 1:02d}_{take.number % 2 + 1}"
        folder = f"CASME_raw_selected/sub{subject:02d}/{clip}"
        width = 1 if i < len(release.takes) // 2 else 3
        release.draw(take, folder, lambda n, clip=clip, w=width: f"{clip}-{n:0{w}d}.jpg")
        coded = _CASME_STYLES[i % len(_CASME_STYLES)](take.aus)
        emotion = "tense" if take.emotion == "others" else take.emotion
        second_apex = take.apex + 1 if i % 3 == 2 else None
        rise_ms, total_ms = (
            round(1000 * n / 60) for n in (take.apex - take.onset, take.offset - take.onset)
        )
        rows.append(
            [
                *(subject, clip, None, take.onset, take.apex, second_apex, take.offset, None),
                *(rise_ms, total_ms, coded.cell, emotion),
            ]
        )
        release.add(
            take,
            subject=f"{subject:02d}",
            clip=clip,
            folder=folder,
            coded=coded,
            emotion=emotion,
        )
    return release.finish("casme.xlsx", {"Sheet1": rows})


def write_casme2(release: Release) -> Layout:
    """Write CASME II: columns without a name, "/" for a missing apex, stray files of Windows."""
    rows: list[list[object]] = [
        [
            *("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None),
            *("Action Units", "Estimated Emotion"),
        ]
    ]
    for i, original in enumerate(release.takes):
        # Numbers cross a power of ten again, because these names are never padded.
        take = original.starting(int(release.rng.integers(40, 99)))
        subject, clip = take.subject + 1, f"EP{take.number // 2 + 2:02d}_{take.number % 2 + 1:02d}f"
        folder = f"CASME2_RAW_selected/sub{subject:02d}/{clip}"
        release.draw(take, folder, lambda n: f"img{n}.jpg")
        if i == 0:
            (release.root / folder / "img1 - Shortcut.lnk").write_bytes(b"L\0\0\0")
            (release.root / folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        coded = _CASME2_STYLES[i % len(_CASME2_STYLES)](take.aus)
        apex = take.apex if take.has_apex else "/"
        rows.append(
            [
                *(subject, clip, None, take.onset, apex, take.offset, None),
                *(coded.cell, take.emotion),
            ]
        )
        release.add(take, subject=f"{subject:02d}", clip=clip, folder=folder, coded=coded)
    return release.finish("CASME2-coding-20190701.xlsx", {"Sheet1": rows})


def write_casme_sq(release: Release) -> Layout:
    """Write CAS(ME)2: long videos, no header, macro-expressions, names in two more sheets.

    The names of the frame files differ between copies of the release, here between videos.
    """
    rows: list[list[object]] = []
    last: dict[int, int] = {}
    for i, original in enumerate(release.takes):
        video, nth = divmod(original.number, 2)
        if original.subject >= len(_SQUARE_FOLDERS) or video >= len(_STIMULI):
            raise ConfigError(
                f"CAS(ME)2 has {len(_SQUARE_FOLDERS)} subjects and {len(_STIMULI)} videos of each;"
                " write fewer subjects, or fewer clips a subject."
            )
        start = 60 if nth == 0 else last[original.subject] + 12
        take = original.starting(start)
        last[take.subject] = take.offset
        code, stimulus, words = _STIMULI[video]
        number = _SQUARE_FOLDERS[take.subject]
        folder = f"rawpic/s{number}/{number}_{code}{words}"
        pattern = "img{}.jpg" if video % 2 == 0 else "img_{}.jpg"
        if nth == 0:
            macro = (start - 50, start - 35, start - 10)
            rows.append(
                [
                    *(take.subject + 1, f"{stimulus}_1", *macro),
                    *("4+7", "negative", "macro-expression", "anger"),
                ]
            )
        clip = f"{stimulus}_{nth + 2}"
        release.draw(take, folder, pattern.format, before=55 if nth == 0 else 3, after=5)
        coded = _SQUARE_STYLES[i % len(_SQUARE_STYLES)](take.aus)
        rows.append(
            [
                *(take.subject + 1, clip, take.onset, take.apex, take.offset, coded.cell),
                *(take.emotion, "micro-expression", stimulus.rstrip("0123456789")),
            ]
        )
        release.add(take, subject=f"s{number}", clip=clip, folder=folder, coded=coded)
    count = 1 + max(take.subject for take in release.takes)
    subjects = [[str(n), f"s{n}", k + 1] for k, n in enumerate(_SQUARE_FOLDERS[:count])]
    stimuli = [[code, name] for code, name, _ in _STIMULI]
    return release.finish(
        "CAS(ME)^2code_final.xlsx",
        {"CASFEcode_final": rows, "naming rule1": subjects, "naming rule2": stimuli},
    )
