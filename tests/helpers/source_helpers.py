"""Small releases written by hand: spreadsheets cell by cell and empty frame files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import openpyxl
from biff_writer import write_xls

from mexjax.prepare.sources import Reading, get_source


def write_sheet(path: Path, *tables: Sequence[Sequence[object]], names: Sequence[str] = ()) -> Path:
    """A workbook (or .csv) with these rows; the reader's parser decides what a cell becomes."""
    if path.suffix == ".xls":
        return write_xls(path, *tables, names=names)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(tables[0])
        return path
    book = openpyxl.Workbook()
    book.remove(book.active)
    for index, rows in enumerate(tables):
        page = book.create_sheet(names[index] if names else f"Sheet{index + 1}")
        for row in rows:
            page.append(list(row))
    book.save(path)
    return path


def write_frames(folder: Path, numbers: Iterable[int], pattern: str = "img{}.jpg") -> Path:
    """Empty image files: readers look at names alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / pattern.format(number)).touch()
    return folder


def read(name: str, root: Path, **kwargs) -> Reading:
    return get_source(name).read(root, **kwargs)


def numbers(name: str, root: Path, row) -> list[int]:
    """Frame numbers that `frames` gives for a row."""
    return [frame.number for frame in get_source(name).frames(root, row)]


def found(reading: Reading, text: str) -> list[str]:
    """The problems that contain a text."""
    return [line for line in reading.problems if text in line]
