"""The layout of a user's own folders: the meaning of each name on the way to a clip.

`subject/emotion/clip` is two folders and the clip; `emotion/subject_clip` takes the subject from
the name of the clip, up to the first `_`; `*` is a name without a meaning.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mexjax.errors import ConfigError, listed
from mexjax.prepare.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mexjax.prepare.sources.folders import Folders, is_hidden, is_video
from mexjax.prepare.sources.losses import Loss
from mexjax.protocol.classes import CLASS_MAPS, canonical_emotion

WORDS = ("subject", "emotion", "clip")
PLAIN = "emotion/clip"
WITH_SUBJECT = "subject/emotion/clip"
_TOKENS = re.compile(r"subject|emotion|clip|\*|[A-Za-z]+|[^A-Za-z*]")
_MAX_DEPTH = 6  # folders below which no clip is looked for
_MAX_EXAMPLES = 5  # paths of a remark
_MIN_IMAGES = 4  # fewer, beside clips, are pictures that somebody left there


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout that was read from its text.

    Attributes:
      text: for example `subject/emotion/clip`.
      levels: a pattern for the name at each level, the clip last.
    """

    text: str
    levels: tuple[re.Pattern[str], ...]

    @property
    def has_subject(self) -> bool:
        """True if names tell the subject."""
        return "subject" in self.text

    def read(self, names: Sequence[str]) -> dict[str, str] | None:
        """The meaning of the names on the way to a clip, by word; None if they do not fit.

        The whole name of the clip is its name, also where a part of it is the subject.
        """
        if len(names) != len(self.levels):
            return None
        matches = [
            pattern.fullmatch(name) for pattern, name in zip(self.levels, names, strict=True)
        ]
        words: dict[str, str] = {}
        for match in matches:
            if match is None:
                return None
            words |= match.groupdict()
        return words | {"clip": names[-1]}


def parse_layout(text: str) -> Layout:
    """Read the text of a layout.

    Raises:
      ConfigError: a word that no layout has, a word twice, or no clip at the end.
    """
    parts = [part.strip() for part in text.strip().strip("/").split("/")]
    advice = (
        f"--layout={text!r} cannot be read. Write the meaning of each name on the way to a clip"
        " with the words subject, emotion and clip, such as --layout=subject/emotion/clip or"
        " --layout=emotion/subject_clip; * is any name."
    )
    levels, words = [], []
    for part in parts:
        tokens = _TOKENS.findall(part)
        here = [token for token in tokens if token in WORDS]
        if not tokens or any(token.isalpha() and token not in WORDS for token in tokens):
            raise ConfigError(advice)
        words += here
        levels.append(re.compile("".join(map(_pattern, tokens))))
    if "clip" not in _TOKENS.findall(parts[-1]) or len(set(words)) < len(words):
        raise ConfigError(advice)
    return Layout("/".join(parts), tuple(levels))


def guess_layout(root: Path, folders: Folders) -> tuple[str, str]:
    """Guess the layout from the depth of the clips.

    Returns:
      its text, and one sentence that says so.
    """
    depths = Counter(len(parts) for parts in clips_below(root, folders))
    depth = max(sorted(depths), key=lambda d: depths[d], default=2)
    if depth <= len(PLAIN.split("/")):
        return PLAIN, (
            f"The folders were read as {PLAIN}; --layout=subject/emotion/clip or"
            " --layout=emotion/subject_clip, for example, says another meaning."
        )
    first, second = (_num_emotions(root, level, folders) for level in (depth - 3, depth - 2))
    text = "*/" * (depth - 3) + ("emotion/subject/clip" if first > second else WITH_SUBJECT)
    other = WITH_SUBJECT if first > second else "emotion/subject/clip"
    return text, (
        f"The folders were read as {text}, because clips lie {depth} names deep;"
        f" --layout={'*/' * (depth - 3)}{other} reads them the other way."
    )


def clips_below(root: Path, folders: Folders) -> list[tuple[str, ...]]:
    """The names on the way to every video, and every folder of images, below a folder."""
    return list(_clips(root, (), folders))


def stray_line(layout: str, names: Sequence[tuple[str, ...]], places: set[tuple[str, ...]]) -> str:
    """A sentence about clips that the layout does not reach; "" without any.

    Args:
      layout: its text.
      names: every clip that is there.
      places: those that were read.
    """
    strays = ["/".join(parts) for parts in names if parts not in places]
    if not strays:
        return ""
    line = (
        f"Not read, because the place is not {layout}: {listed(strays, _MAX_EXAMPLES)}"
        f" ({len(strays)} clip{'' if len(strays) == 1 else 's'}). Move them, or say the layout"
        " with --layout."
    )
    return Loss(line, "clips that do not lie as the layout says", len(strays))


def loose_lines(
    root: Path, places: set[tuple[str, ...]], folders: Folders, layout: str
) -> list[Loss]:
    """A line for each folder on the way to a clip with media or links that are in no clip."""
    lines = []
    above = {parts[:depth] for parts in places for depth in range(len(parts))}
    for parts in sorted(above):
        loose = folders.loose(root.joinpath(*parts))
        if not parts:  # a table and notes may lie in the root
            loose = [p for p in loose if p.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)]
        names = [path.name for path in loose if not path.is_dir()]
        if names:
            more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
            line = (
                f"{root.joinpath(*parts)}: {names[0]}{more} in no clip and left out. A clip is a"
                f" video or a folder of images, at the place {layout}."
            )
            lines.append(Loss(line, "files that are in no clip", len(names)))
    return lines


def _clips(folder: Path, parts: tuple[str, ...], folders: Folders) -> Iterator[tuple[str, ...]]:
    names = sorted(name for name in folders.names(folder) if not is_hidden(name))
    others = [name for name in names if Path(name).suffix.lower() not in IMAGE_SUFFIXES]
    num_images = len(names) - len(others)
    if parts and num_images >= _MIN_IMAGES:
        yield parts
        return
    has_clips = False
    for name in others:
        path = folder / name
        if is_video(path):
            deeper = [(*parts, name)]
        elif path.is_dir() and len(parts) < _MAX_DEPTH:
            deeper = list(_clips(path, (*parts, name), folders))
        else:
            continue
        has_clips = has_clips or bool(deeper)
        yield from deeper
    if parts and num_images and not has_clips:
        yield parts


def _num_emotions(root: Path, level: int, folders: Folders) -> float:
    """The share of names at a level of folders that are emotion words."""
    words = {word for each in CLASS_MAPS.values() for word in (*each.mapping, *each.dropped)}
    places = [root]
    for _ in range(level):
        places = [sub for place in places for sub in folders.subfolders(place)]
    names = {canonical_emotion(sub.name) for place in places for sub in folders.subfolders(place)}
    return len(names & words) / max(1, len(names))


def _pattern(token: str) -> str:
    """A token as a regular expression; a word ends where the text behind it begins."""
    if token == "*":
        return ".*?"
    return f"(?P<{token}>.+?)" if token in WORDS else re.escape(token)
