"""Tables of clips: spoilt files, nonsense in cells, odd forms; up to the rows of the manifest.

A table that only looks different gives the same clips. A zip file that is damaged and read all the
same gives them too. No row is left out without a remark.
"""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd

from mexjax.data.manifest import BASE, read_manifest, write_manifest
from mexjax.prepare.layouts import LAYOUTS, write_layout
from mexjax.prepare.options import Input
from mexjax.prepare.pipeline import Found, read_inputs

from .damage import NONSENSE, replace, rewrite, spoil_bytes
from .harness import SUCCESS, Case, Kind, SilentError

COLUMNS = ["dataset", "subject", "clip", "onset", "apex", "offset", "emotion", "aus"]
OWN_HEADER = ["subject", "clip", "path", "onset", "apex", "offset", "emotion", "au", "fps"]
CELLS: tuple[Any, ...] = (
    *"| |0|-1|1e5|1.5|NaN|inf|/|NA|None|null|-|x|٣|½|1,5|12/03/2019|=1+1|=A1|#REF!|../x".split("|"),
    *"/etc|C:\\x|a/b|a\\b|CON|\u202e|\u200b|e\u0301|[/x]|a\nb|'1|4 or 7|4+|R4+L7|12?|+".split("|"),
    *"999|*|?|.|..|~|sub01|True|Happy+Sad|A;B".split("|"),
    *("1" * 40, "x" * 400, "é" * 300),
    *(0, 1, -1, 3, 7, 10**9, 10**15, 1.5, 1e300, True, False, None),
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030", "latin-1", "cp1252")


class Tables(Kind):
    """The layouts of all releases, a table of one's own, and folders of classes."""

    def set_up(self, folder: Path) -> None:
        self.inputs: dict[str, tuple[Path, Path | None]] = {}
        for name in LAYOUTS:
            layout = write_layout(name, folder / name, num_clips=6, resolution_px=16)
            self.inputs[name] = layout.root, layout.spreadsheet
        self.inputs["csv"] = _write_own(folder / "own")
        self.inputs["folder"] = _write_folders(folder / "classes"), None
        self.grids = {
            name: _grids(path) for name, (_, path) in self.inputs.items() if path is not None
        }
        self.found = {
            name: read_inputs([Input(name, root, path)])
            for name, (root, path) in self.inputs.items()
        }
        self.others = sorted(path for _, path in self.inputs.values() if path is not None)

    def case(self, chance: random.Random, folder: Path) -> Case:
        name = chance.choice([*self.inputs, "csv", "csv", "csv"])
        root, sheet = self.inputs[name]
        if sheet is None:
            return self._folders(chance, name, root, folder)
        way = chance.choice(["bytes", "inner", "cells", "cells", "cells", "form", "form"])
        if way == "bytes":
            return self._bytes(chance, name, folder)
        if way == "inner" and sheet.suffix == ".xlsx":
            return self._inner(chance, name, folder)
        grids = {title: [list(row) for row in rows] for title, rows in self.grids[name].items()}
        words = [_odd_form(chance, grids, is_own=name == "csv") for _ in range(chance.randrange(3))]
        is_same = way == "form"
        if not is_same:
            words += [_nonsense(chance, grids) for _ in range(chance.choice([1, 1, 2, 3, 8]))]
        path, how, is_exact = _write(chance, folder / f"t{sheet.suffix}", grids, is_same=is_same)
        num_rows = num_filled(grids)
        text = f"{name}: {'; '.join([*filter(None, words), how])}"
        return Case(
            text,
            lambda: self._act(name, path, folder, is_same=is_same and is_exact, num_rows=num_rows),
        )

    def _bytes(self, chance: random.Random, name: str, folder: Path) -> Case:
        sheet = self.inputs[name][1]
        assert sheet is not None
        path = folder / sheet.name
        shutil.copyfile(sheet, path)
        if chance.random() < 0.8:
            words = spoil_bytes(path, chance)
            # A zip file has checksums of its own; a text has none.
            is_same = sheet.suffix == ".xlsx"
        else:
            words, is_same = replace(path, chance, self.others), False
        if chance.random() < 0.1 and path.is_file():
            path = path.rename(path.with_suffix(chance.choice([".csv", ".xls", ".xlsx", ".txt"])))
            is_same = is_same and path.suffix == ".xlsx"
        return Case(f"{name}: {words}", lambda: self._act(name, path, folder, is_same=is_same))

    def _inner(self, chance: random.Random, name: str, folder: Path) -> Case:
        """Spoil a part of a workbook, and pack it again with the right checksums."""
        sheet = self.inputs[name][1]
        assert sheet is not None
        part, path = folder / "part", folder / sheet.name
        with zipfile.ZipFile(sheet) as source, zipfile.ZipFile(path, "w") as target:
            names = source.namelist()
            victim = chance.choice([*names, *(item for item in names if "sheet" in item)])
            part.write_bytes(source.read(victim))
            words = spoil_bytes(part, chance)
            for item in names:
                target.writestr(item, part.read_bytes() if item == victim else source.read(item))
        return Case(
            f"{name}: {victim} {words}", lambda: self._act(name, path, folder, is_same=False)
        )

    def _folders(self, chance: random.Random, name: str, root: Path, folder: Path) -> Case:
        """Folders of classes with names and files that do not belong there."""
        place = folder / "release"
        shutil.copytree(root, place)
        words = [_odd_entry(chance, place) for _ in range(chance.choice([1, 2, 4]))]
        return Case(
            f"{name}: {'; '.join(words)}",
            lambda: self._read(name, place, None, folder, is_same=False),
        )

    def _act(
        self, name: str, path: Path, folder: Path, *, is_same: bool, num_rows: int | None = None
    ) -> str:
        root = self.inputs[name][0]
        return self._read(name, root, path, folder, is_same=is_same, num_rows=num_rows)

    def _read(
        self,
        name: str,
        root: Path,
        path: Path | None,
        folder: Path,
        *,
        is_same: bool,
        num_rows: int | None = None,
    ) -> str:
        found, before = read_inputs([Input(name, root, path)]), self.found[name]
        check_table(found)
        manifest = folder / "manifest.parquet"
        write_manifest(found.table, manifest)
        _equal(read_manifest(manifest, required=BASE), found.table, "written and read back")
        if is_same:
            _equal(found.table, before.table, "than without the damage")
        if num_rows is not None:
            rows = num_filled(self.grids[name])
            lost = num_rows - rows - (len(found.table) - len(before.table))
            if lost > 0 and set(found.problems) <= set(before.problems):
                raise SilentError(f"{lost} rows more than before are no clips, without a remark")
        return SUCCESS


def check_table(found: Found) -> None:
    """The rows are clips that can be: names, order of frames, counts, rate, units."""
    seen: set[tuple[str, str]] = set()
    for row in found.table.to_dict("records"):
        name = f"{row['subject']}/{row['clip']}"
        prefix, _, subject = row["subject"].partition("/")
        key = (row["subject"].casefold(), row["clip"].casefold())
        is_usable = row["onset"] <= row["offset"]  # the others are reported and have no frames
        order = row["onset"] <= row["apex"] <= row["offset"]
        absent = 0 <= row["num_missing_frames"] <= row["n_frames"]
        problems = [
            (prefix != row["dataset"] or not subject.strip(), "a subject without a name"),
            (not row["clip"].strip(), "a clip without a name"),
            (key in seen, "twice"),
            (is_usable and not order, "key frames out of order"),
            (is_usable and not absent, "more missing than frames"),
            (row["n_frames"] != row["offset"] - row["onset"] + 1, "another number of frames"),
            (not 0 < row["fps"] < 1e5, f"{row['fps']} frames a second"),
            (not all(unit.isdecimal() for unit in row["aus"]), f"the units {row['aus']}"),
            (".." in Path(row["frame_folder"]).parts, "a folder that climbs"),
        ]
        seen.add(key)
        for is_wrong, words in problems:
            if is_wrong:
                raise SilentError(f"{name!r}: {words}")


def _equal(table: pd.DataFrame, other: pd.DataFrame, words: str) -> None:
    rows, others = (_rows(frame) for frame in (table, other))
    if rows != others:
        pairs = zip(rows, others, strict=False)
        first = next(((a, b) for a, b in pairs if a != b), (len(rows), len(others)))
        raise SilentError(f"other clips {words}: {first[0]} and {first[1]}")


def _rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    return sorted(tuple(map(str, row)) for row in table[COLUMNS].to_numpy(object).tolist())


def _odd_form(chance: random.Random, grids: dict[str, list[list[Any]]], *, is_own: bool) -> str:
    """Change what the table looks like and not what it says."""
    rows = chance.choice(list(grids.values()))
    width = max((len(row) for row in rows), default=0)
    ways = ["blank row", "blank column", "spaces"]
    # Releases have no header to find the rows by, or several; a user's own table has one.
    ways += ["shuffle", "columns", "case", "twice", "title", "remark column"] if is_own else []
    way = chance.choice(ways)
    if way == "blank row":
        rows.insert(chance.randrange(1, len(rows) + 1) if rows else 0, [None] * width)
    elif way == "blank column":
        for row in rows:
            row.append(None)
    elif way == "spaces":
        row = chance.choice(rows) if rows else []
        row[:] = [f" {cell}  " if isinstance(cell, str) and cell else cell for cell in row]
    elif way == "shuffle":
        first = 1 + str(rows[0][0]).startswith("Our clips")  # the header stays above the clips
        body = rows[first:]
        chance.shuffle(body)
        rows[first:] = body
    elif way == "columns":
        order = list(range(width))
        chance.shuffle(order)
        rows[:] = [[(row + [None] * width)[i] for i in order] for row in rows]
    elif way == "case":
        rows[0] = [str(cell).upper().replace("_", " ") if cell else cell for cell in rows[0]]
    elif way == "twice" and len(rows) > 2:
        rows.append(list(chance.choice(rows[1:])))
    elif way == "title":
        rows.insert(0, ["Our clips, 2024; see the notes, please"] + [None] * (width - 1))
    elif way == "remark column":
        for index, row in enumerate(rows):
            row.append("remarks" if not index else "seen, twice; good")
    return way


def _nonsense(chance: random.Random, grids: dict[str, list[list[Any]]]) -> str:
    """Change what the table says."""
    title, rows = chance.choice(list(grids.items()))
    if not rows or not rows[0]:
        return f"nothing in {title}"
    at = chance.randrange(len(rows))
    row = rows[at]
    column = chance.randrange(len(row)) if row else 0
    way = chance.choice(["cell"] * 10 + ["row", "column", "swap", "longer", "shorter", "twice"])
    if way == "cell" and row:
        row[column] = chance.choice(CELLS if chance.random() < 0.9 else NONSENSE)
        return f"row {at + 1}, column {column + 1} is {repr(row[column])[:40]}"
    if way == "row":
        del rows[at]
    elif way == "column":
        for each in rows:
            del each[column : column + 1]
    elif way == "swap":
        other = chance.randrange(len(rows))
        rows[at], rows[other] = rows[other], rows[at]
    elif way == "longer":
        row += [chance.choice(CELLS) for _ in range(chance.choice([1, 300]))]
    elif way == "shorter":
        del row[column:]
    else:
        rows += [list(row)] * chance.choice([1, 2, 50])
    return f"{way} at row {at + 1}, column {column + 1}"


def _write(
    chance: random.Random, path: Path, grids: dict[str, list[list[Any]]], *, is_same: bool
) -> tuple[Path, str, bool]:
    """Write the table in a format; the last value is False where that loses some cells."""
    kind = chance.choice([path.suffix, ".csv", ".xlsx"]) if len(grids) == 1 else ".xlsx"
    path = path.with_suffix(kind)
    if kind == ".xlsx":
        book = openpyxl.Workbook()
        book.remove(book.worksheets[0])
        for title, rows in grids.items():
            page = book.create_sheet(title)
            for row in rows:
                page.append([_cell(cell) for cell in row])
        book.save(path)
        return path, "as .xlsx", True
    rows = next(iter(grids.values()))
    delimiter = chance.choice([",", ";", "\t"])
    encoding = chance.choice(ENCODINGS[:2] if is_same else ENCODINGS)
    memory = io.StringIO()
    quoting = chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    ends = chance.choice(["\n", "\r\n"] if is_same else ["\n", "\r\n", "\r"])
    writer = csv.writer(memory, delimiter=delimiter, quoting=quoting, lineterminator=ends)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    rewrite(path, memory.getvalue().encode(encoding, errors="replace"))
    return path, f"as .csv, {delimiter!r}, {encoding}, ends {ends!r}", True


def _cell(cell: Any) -> Any:
    """A cell as a workbook takes it."""
    if isinstance(cell, str):
        text = "".join(c if c >= " " or c in "\n\t" else "?" for c in cell)
        return text.encode("utf-8", "replace").decode()
    is_plain = cell is None or isinstance(cell, bool | float | int)
    return cell if is_plain else str(cell)


def num_filled(grids: dict[str, list[list[Any]]]) -> int:
    """Rows that say something of a clip, over all tables: lines of a title are none.

    Tables that say how folders are called have no clips.
    """
    return sum(
        sum(bool(_text(cell)) for cell in row[:6]) >= 3
        for title, rows in grids.items()
        for row in rows
        if not title.startswith("naming rule")
    )


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _grids(path: Path) -> dict[str, list[list[Any]]]:
    """All cells of a file: name of the table -> rows."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return {"t": [list(row) for row in csv.reader(file)]}
    book = openpyxl.load_workbook(path)
    return {page.title: [list(row) for row in page.values] for page in book.worksheets}


def _write_own(root: Path) -> tuple[Path, Path]:
    """A table of seven clips of three people, with empty images."""
    rows: list[list[Any]] = [OWN_HEADER]
    emotions = ("happiness", "surprise", "disgust", "fear")
    for index in range(7):
        subject, clip = ("anna", "José", "03")[index % 3], f"EP{index:02d}"
        first = 10 * index + 1
        units = ("4+7", "12", "R1+2", "0", "")[index % 5]
        row = [subject, clip, f"{subject}/{clip}", first, first + 3, first + 8]
        rows.append([*row, emotions[index % 4], units, 100])
        place = root / subject / clip
        place.mkdir(parents=True)
        for number in range(first, first + 9):
            (place / f"img{number}.jpg").touch()
    path = root / "clips.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return root, path


def _write_folders(root: Path) -> Path:
    """Six clips of three classes, with empty images and a table of the subjects."""
    rows = [["clip", "subject"]]
    for index, emotion in enumerate(("happiness", "surprise", "fear") * 2):
        place = root / emotion / f"c{index}"
        place.mkdir(parents=True)
        rows.append([f"c{index}", f"s{index % 2}"])
        for number in range(1, 10):
            (place / f"img{number}.png").touch()
    with (root / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return root


def _odd_entry(chance: random.Random, root: Path) -> str:
    """Put something odd into a release, or take something away."""
    places = sorted(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())
    place = chance.choice([*places, root])
    texts = [
        "img5.png|img10_v2.png|x.avi|t.xlsx|t2.csv|CON|[/x]|e\u0301.png|\u200b|a\nb|.hidden",
        "~$t.xlsx|Happy|sad |img3.PNG|img²3.png|img٣.png|-1.png",
    ]
    names = [*"|".join(texts).split("|"), "9" * 200 + ".png", "x" * 255, b"\xff\xfe", b"\xff.png"]
    name = chance.choice(names)
    path = os.path.join(os.fsencode(place), name if isinstance(name, bytes) else name.encode())
    way = chance.choice(["file", "folder", "fifo", "loop", "nowhere", "remove", "bytes", "image"])
    words = f"{way} {repr(name)[:40]} in {place.name}"
    if way == "remove":
        victim = chance.choice(sorted(root.rglob("*")) or [root / "x"])
        shutil.rmtree(victim) if victim.is_dir() else victim.unlink(missing_ok=True)
        return f"without {victim.name}"
    is_new = not os.path.lexists(path) and os.path.isdir(os.path.dirname(path))
    if not is_new:
        return f"{words}: not possible"
    if way == "file":
        open(path, "wb").close()
    elif way == "bytes":
        with open(path, "wb") as file:
            file.write(chance.randbytes(chance.choice([1, 100, 5000])))
    elif way == "folder":
        os.mkdir(path)
    elif way == "image":
        os.mkdir(path)
        for number in range(4):
            open(os.path.join(path, b"f%d.png" % number), "wb").close()
    elif way == "fifo":
        os.mkfifo(path)
    else:
        os.symlink(path if way == "loop" else b"nowhere/at/all", path)
    return words
