"""Frame folders: finding them whatever the case of their names, and the frames in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from mexjax.errors import DataError
from mexjax.files import is_file
from mexjax.prepare.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mexjax.prepare.regular_files import irregularity
from mexjax.prepare.sources.base import Frame
from mexjax.prepare.sources.frame_numbers import number_images, order_remark
from mexjax.prepare.videos import VideoFacts, video_facts
from mexjax.protocol.names import fold

MAX_VIDEO_FRAMES = 1_000_000  # more than an hour at 200 fps: not a clip, or a false header


# Archives of macOS, network disks, bins and file systems have folders of these names, in which
# copies and thumbnails of images lie.
_OF_SYSTEMS = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found"),
        "system volume information",
    }
)


class Folders:
    """Listings of folders, each read once."""

    def __init__(self) -> None:
        self._names: dict[Path, tuple[frozenset[str], dict[str, list[str]]]] = {}
        self._frames: dict[Path, list[Frame]] = {}
        self._counted: set[Path] = set()
        self._remarks: dict[Path, list[str]] = {}
        self._alike: dict[tuple[Path, str], tuple[str, ...]] = {}
        self._taken: set[Path] = set()

    def descend(self, folder: Path, parts: Iterable[str]) -> Path | None:
        """Return `folder/parts[0]/...`, in any case and look-alike spelling, if it exists.

        Each part is compared with the names in the folder, so a part cannot climb out of it. A
        part that ends in "*" stands for the one name that begins so. Where names that look alike
        lead to several paths, the one that is spelled as the parts is taken, else none; `alike`
        tells of them.
        """
        parts = list(parts)
        paths = self._descend(folder, parts)
        best = folder.joinpath(*parts)
        chosen = paths[0] if len(paths) == 1 else best if best in paths else None
        if chosen is not None:
            self._taken.add(chosen)
            self._taken.update(list(chosen.parents)[: len(parts) - 1])
        return chosen

    def _descend(self, folder: Path, parts: Sequence[str]) -> list[Path]:
        """List every path that the parts may mean."""
        if not parts:
            return [folder]
        by_key = self._list(folder)[1]
        key = fold(parts[0])
        names = by_key.get(key, ())
        if not names and parts[0].endswith("*"):
            keys = [each for each in by_key if each.startswith(fold(parts[0][:-1]))]
            key, names = (keys[0], by_key[keys[0]]) if len(keys) == 1 else ("", ())
        if len(names) > 1:
            is_last = len(parts) == 1
            paths = [folder / name for name in names]
            names = [p.name for p in paths if (is_clip(p) if is_last else p.is_dir())] or names
        if len(names) > 1:
            self._alike[folder, key] = tuple(names)
        return [path for name in names for path in self._descend(folder / name, parts[1:])]

    def alike(self) -> list[str]:
        """Return a line for all names that clips were looked for under and that look alike."""
        lines = []
        for (folder, _), names in self._alike.items():
            taken = [ascii(name) for name in names if folder / name in self._taken]
            which = (
                f"clips were read from {' and '.join(taken)}"
                if taken
                else "none was read, because the table spells it as none of them"
            )
            lines.append(
                f"{folder} has {' and '.join(map(ascii, names))}, which look alike or differ in"
                f" case alone, so that a name in the table may mean either: {which}. Rename one of"
                " them, or give the table a column path."
            )
        return lines

    def subfolders(self, folder: Path) -> list[Path]:
        """List the folders in `folder` in natural order, hidden ones left out."""
        names = (folder / name for name in self._list(folder)[0] if not is_hidden(name))
        return sorted(filter(Path.is_dir, names), key=natural_key)

    def clips(self, folder: Path) -> list[Path]:
        """List the folders and videos in `folder` in natural order."""
        names = (folder / name for name in self._list(folder)[0] if not is_hidden(name))
        return sorted(filter(is_clip, names), key=natural_key)

    def loose(self, folder: Path) -> list[Path]:
        """List the files in `folder` that are no clips, hidden ones left out."""
        names = (folder / name for name in self._list(folder)[0] if not is_hidden(name))
        return sorted((path for path in names if not is_clip(path)), key=natural_key)

    def has_images(self, folder: Path) -> bool:
        """Tell whether an image lies in a folder itself."""
        return any(
            Path(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)
            for name in self._list(folder)[0]
        )

    def names(self, folder: Path) -> frozenset[str]:
        """List the names of everything in `folder`; nothing if it is no folder."""
        return self._list(folder)[0]

    def frames(self, path: Path, *, is_counted: bool = False) -> list[Frame]:
        """List frames as `list_frames` does; a video once counted stays so."""
        is_counted = is_counted and is_video(path)
        if path not in self._frames or (is_counted and path not in self._counted):
            remarks: list[str] = []
            self._frames[path] = list_frames(path, is_counted=is_counted, remarks=remarks)
            self._remarks[path] = remarks
            if is_counted:
                self._counted.add(path)
        return self._frames[path]

    def take_remarks(self, path: Path) -> list[str]:
        """Return the remarks on a clip's frames, once for each path."""
        remarks = self._remarks.get(path, [])
        self._remarks[path] = []
        return remarks

    def _list(self, folder: Path) -> tuple[frozenset[str], dict[str, list[str]]]:
        """The names in a folder, and by the key of `fold` those that look alike."""
        if folder not in self._names:
            try:
                names = os.listdir(folder) if folder.is_dir() else []
            except OSError as error:
                raise DataError(f"Cannot list the folder {folder}: {error.strerror}.") from error
            by_key: dict[str, list[str]] = {}
            for name in sorted(names):
                by_key.setdefault(fold(name), []).append(name)
            self._names[folder] = frozenset(names), by_key
        return self._names[folder]


def is_hidden(name: str) -> bool:
    """Tell whether a name is hidden, or that of a folder that systems make of their own accord."""
    return name.startswith(".") or name.casefold() in _OF_SYSTEMS


def is_clip(path: Path) -> bool:
    """Tell whether a path can hold frames: a folder, or a video by its name.

    A video that is a FIFO, a device or a broken link counts, so that its clip is reported.
    """
    return path.is_dir() or is_video(path)


def is_video(path: Path) -> bool:
    """Tell by its name whether a path is a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


def natural_key(path: Path) -> tuple[list[Any], str]:
    """Make a key that sorts img2 before img10."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def list_frames(
    path: Path, *, is_counted: bool = False, remarks: list[str] | None = None
) -> list[Frame]:
    """List all frames of a clip by number: the images in a folder, or the frames of a video.

    `mexjax.prepare.sources.frame_numbers` has the rule for the number of an image. Where no image
    has one, they are numbered from 1 in the order of their names.

    Args:
      path: the folder or video.
      is_counted: see `count_video_frames`.
      remarks: clauses about what is odd, and what was left out, are added.

    Raises:
      DataError: it cannot be listed or opened, or two images have the same number.
    """
    remarks = [] if remarks is None else remarks
    if is_video(path):
        count = count_video_frames(path, is_counted=is_counted)
        remarks += _facts(path, is_counted).remarks
        return [Frame(number, path) for number in range(count)]
    try:
        with os.scandir(path) as entries:
            # Most file systems tell regular files in the listing; any other name is asked.
            regular = {
                entry.name: entry.is_file(follow_symlinks=False)
                for entry in entries
                if not entry.name.startswith(".")
            }
    except OSError as error:
        raise DataError(f"Cannot list the frames of {path}: {error.strerror}.") from error
    images, kinds = [], []
    for image in sorted((path / name for name in regular), key=natural_key):
        if image.suffix.lower() in IMAGE_SUFFIXES:
            kind = "" if regular[image.name] else irregularity(image)
            (kinds if kind else images).append((image, kind))
    paths = [image for image, _ in images]
    by_number, others = number_images(paths, path)
    if said := order_remark(paths, by_number):
        remarks.append(said)
    for names, why in (
        ([image for image, _ in kinds], f"is {kinds[0][1]}" if kinds else ""),
        (others, "has no frame number"),
    ):
        if names:
            more = f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""
            remarks.append(f"{names[0]}{more} {why} and was left out")
    return [Frame(number, by_number[number]) for number in sorted(by_number)]


def contents(path: Path) -> str:
    """Return a clause about a folder without images: the formats read, and what is there."""
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    formats = f"holds no images that are read ({', '.join(IMAGE_SUFFIXES)})"
    if not names:
        return f"{formats}: it is empty"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{formats}, but {names[0]}{more}"


def not_found(places: Iterable[Sequence[str]], root: Path) -> str:
    """Say where the frames were looked for, and whether a file of another kind is there."""
    names = ["/".join(place) for place in places]
    for name in names:
        if is_file(root.joinpath(name)):
            return f"{root / name} is neither a folder of images nor a video."
    return f"no frame folder; expected {' or '.join(names[:3])} below {root}."


def _facts(path: Path, is_counted: bool) -> VideoFacts:
    return video_facts(path, is_counted=is_counted, limit=MAX_VIDEO_FRAMES)


def count_video_frames(path: Path, *, is_counted: bool = False) -> int:
    """Return the number of frames of a video from its header, or by counting where it has none.

    Args:
      path: the video.
      is_counted: count in any case, which reads the whole file. A header may be off, because
        OpenCV takes duration times frames per second for many formats.

    Raises:
      DataError: it cannot be opened or decoded, or has more than `MAX_VIDEO_FRAMES`.
    """
    facts = _facts(path, is_counted)
    if not 0 < facts.num_frames <= MAX_VIDEO_FRAMES:
        raise DataError(
            f"The video {path} has {facts.num_frames} frames"
            f"{'' if facts.is_counted else ' by its header'}; expected"
            f" 1 to {MAX_VIDEO_FRAMES}. Convert it again, or cut it into clips."
        )
    return facts.num_frames


def video_clock(path: Path, *, is_counted: bool = False) -> tuple[float, bool]:
    """Return frames per second (nan where unknown), and whether they are the mean of a clock.

    Args:
      path: the video.
      is_counted: read all time stamps and not those of its begin alone.

    Raises:
      DataError: it cannot be opened.
    """
    facts = _facts(path, is_counted)
    return facts.fps, facts.is_variable


def video_fps(path: Path) -> float:
    """Return the frames per second of a video by its time stamps; nan where they are unknown."""
    return video_clock(path)[0]


def check_part(part: str, where: str) -> None:
    """Refuse a spreadsheet cell that would be more than one plain name in a path.

    Raises:
      DataError: the cell has a separator, a wildcard, a drive or a control character, or is ".".
    """
    is_plain = part not in (".", "..") and not re.search(r"[/\\*?\x00-\x1f]", part)
    if not is_plain or PureWindowsPath(part).drive:
        raise DataError(
            f"{where}: {part!r} cannot be the name of a folder and would lead out of the dataset."
            " Correct the cell; a table of your own may have paths below the root in a column path."
        )


def check_relative(text: str, where: str) -> tuple[str, ...]:
    r"""Split a relative path of a spreadsheet or manifest at "\" and "/" alike.

    Raises:
      DataError: the path is absolute or climbs with "..".
    """
    unified = text.replace("\\", "/")
    parts = tuple(part for part in unified.split("/") if part not in ("", "."))
    if unified.startswith("/") or not parts:
        raise DataError(f"{where}: {text!r} is not a path below the dataset's folder.")
    for part in parts:
        check_part(part, where)
    return parts


def check_inside(path: Path, bases: Iterable[Path], where: str) -> None:
    """Refuse a path that leaves all of `bases` through a link.

    Raises:
      DataError: the path does so.
    """
    resolved = Path(os.path.realpath(path))  # unlike resolve, it takes a link that leads to itself
    bases = list(bases)
    if not any(resolved.is_relative_to(os.path.realpath(base)) for base in bases):
        raise DataError(
            f"{where}: {path} is a link to {resolved}, outside of {bases[0]}. Give the folder it"
            " leads to as --root."
        )


def frames_of(root: Path, row: Mapping[str, Any], homes: Sequence[str] = ()) -> list[Frame]:
    """List the existing frames of a row of the table, from onset to offset.

    Args:
      root: folder of the dataset.
      row: at least subject, clip, onset, offset and frame_folder.
      homes: sub-folders of `root` that may themselves be links to another disk.

    Raises:
      DataError: the row has no frame folder, or no frame of it exists.
    """
    where = f"Clip {row['subject']}/{row['clip']}"
    if not row["frame_folder"]:
        raise DataError(f"{where}: its frames were not found below {root} when it was read.")
    parts = check_relative(str(row["frame_folder"]), where)
    path = Path(root).joinpath(*parts)
    if not path.exists():  # a name that is no UTF-8 is written otherwise
        path = Folders().descend(Path(root), parts) or path
    if not path.exists():
        raise DataError(f"{where}: {path} does not exist. Has the dataset moved?")
    check_inside(path, [Path(root), *(Path(root) / home for home in homes)], where)
    onset, offset = int(row["onset"]), int(row["offset"])
    listed = list_frames(path)
    if is_video(path) and len(listed) <= offset:
        listed = list_frames(path, is_counted=True)  # it may have more frames than its header says
    frames = [frame for frame in listed if onset <= frame.number <= offset]
    if not frames:
        raise DataError(f"{where}: {path} has none of the frames {onset} to {offset}.")
    return frames
