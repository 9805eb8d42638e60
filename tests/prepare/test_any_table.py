"""Tables of any names in any format give the same clips, subjects and labels, or a message.

`MEXJAX_EXAMPLES` sets the number of tables (40).
"""

from __future__ import annotations

import csv
import datetime
import io
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

import openpyxl
from biff_writer import ERRORS, Error, Padded, write_xls
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from source_helpers import read

from mexjax.errors import DataError
from mexjax.protocol.action_units import parse_aus
from mexjax.protocol.names import fold, tidy

NUM_EXAMPLES = int(os.environ.get("MEXJAX_EXAMPLES", "40"))
FIELDS = ("subject", "clip", "onset", "apex", "offset", "emotion", "au")
HEADERS = {
    "subject": ("subject", "Subject ", "SUB", "\uff33ubject"),
    "clip": ("clip", "Filename", "File_Name"),
    "onset": ("onset", "OnsetFrame", "Onset Frame"),
    "apex": ("apex", "ApexFrame", "ApexF1"),
    "offset": ("offset", "Offset frame"),
    "emotion": ("emotion", "Estimated Emotion", "label"),
    "au": ("au", "Action Units", "AUs"),
}
ODD = ["NA", "None", "null", "nan", "N/A", "001", "01", "1", "1.0", "1e5", "TRUE", "FALSE", "#N/A"]
ODD += ["2026-03-01", "#REF!", "1,5", "-", "/x", "a;b", "a|b", "a\tb", 'say "a"', "a, b", "sep=;"]
PEOPLE = [
    "Jos\u00e9",
    "Jose\u0301",
    "JOS\u00c9",
    "\uff2aos\u00e9",
    "Jos\u00e9\u200b",
    "M\u00fcller",
]
PEOPLE += ["\u5f20\u4e09", "\u738b\u5c0f\u660e", "anna", "anna ", " anna", "an\u00adna", "an  na"]
LETTERS = "ab1 Jo\u00e9e\u0301\u200b\u00a0\uff11\u00ad\u2011-_.+NAn\u3000\ufeff"
NAMES = st.one_of(
    st.sampled_from(PEOPLE), st.sampled_from(ODD), st.text(LETTERS, min_size=1, max_size=5)
)
FRAMES = st.one_of(
    st.integers(0, 30).map(str), st.sampled_from(["", "/", "NA", "x", "5.0", "5,0", "05", " 5 "])
)
EMOTIONS = {"fear": "fear", "happy": "happiness", "": "", "NA": "", "Sad\u200b": "sadness"}
EMOTIONS |= {"#N/A": "", " disgust": "disgust", "happiness+fear": "happiness+fear"}
UNITS = ["4", "4+7", "", "0", "4 or 7", "none", "4,7", "L4+R2?", "7(k)", "#REF!"]
ROW = st.tuples(
    *(NAMES, NAMES, FRAMES, FRAMES, FRAMES),
    st.sampled_from(sorted(EMOTIONS)),
    st.sampled_from(UNITS),
)


@st.composite
def tables(draw):
    """Rows of a few people, often several of one person below each other."""
    people = draw(st.lists(NAMES, min_size=1, max_size=3))
    if draw(st.integers(0, 4)) == 0:
        people = ["Jos\u00e9", "M\u00fcller"]  # all that Windows-1252 can write
    rows = draw(st.lists(ROW, min_size=1, max_size=7))
    order = [draw(st.sampled_from(people)) for _ in rows]
    if draw(st.booleans()):
        order.sort()
    return [(person, *row[1:]) for person, row in zip(order, rows, strict=True)]


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "gb18030")


def number(text):
    """The frame number of a cell, or None."""
    match = re.fullmatch(r"\s*(\d+)([.,]0)?\s*", text)
    return int(match[1]) if match else None


def expected(rows):
    """The clips that a person reads in these rows: subject, frames, emotion and units."""
    clips, before = [], set()
    for row in rows:
        subject, clip, onset, apex, offset, emotion, au = (
            "" if cell.strip() in ERRORS else cell for cell in row
        )
        if not tidy(subject) or not tidy(clip):
            continue
        texts = tuple(cell.strip() for cell in (onset, apex, offset, emotion, au))
        names = [tidy(subject), tidy(clip)]
        spell = fold if texts[0] and texts[2] else str
        key = (*map(spell, names), *texts)
        first, last = number(onset), number(offset)
        if key in before or first is None or last is None:
            before.add(key)
            continue
        before.add(key)
        middle, top = (first + last) // 2, number(apex)
        is_inside = top is not None and (first > last or first <= top <= last)
        try:
            units = tuple(str(unit) for unit in parse_aus(au).present)
        except DataError:
            units = ()
        labels = (top if is_inside else middle, last, EMOTIONS[emotion], units)
        clips.append((f"csv/{fold(names[0])}", first, *labels))
    return Counter(clips)


def answer(path):
    """The clips of a table and the remarks, or None and the message."""
    try:
        reading = read("csv", path.parent, spreadsheet=path)
    except DataError as error:
        text = str(error)
        assert len(text) < 700 and "\n" not in text
        return None, [text]
    table = reading.table
    assert not table.duplicated(["subject", "clip"]).any()
    spellings = table["subject"].map(fold)
    assert spellings.nunique() == table["subject"].nunique()
    columns = [table[name] for name in ("onset", "apex", "offset", "emotion")]
    units = [tuple(units) for units in table["aus"]]
    return Counter(zip(spellings, *columns, units, strict=True)), list(reading.problems)


@st.composite
def layouts(draw):
    """How a table is written: order and spelling of its columns, and rows that are no clips."""
    order = draw(st.permutations(FIELDS))
    return {
        "order": order,
        "headers": [draw(st.sampled_from(HEADERS[name])) for name in order],
        "titles": draw(st.lists(st.sampled_from(["", "my clips; of, 2026 | x"]), max_size=3)),
        "notes": draw(st.sampled_from([None, "", "a, b; c | d\te", 'he said "x", then\nleft'])),
        "repeats_header": draw(st.booleans()),
        "has_empty_rows": draw(st.booleans()),
    }


def lay_out(rows, layout):
    """Rows of cells, in their order, with the header; and the place of the header."""
    places = [FIELDS.index(name) for name in layout["order"]]
    notes = [] if layout["notes"] is None else [layout["notes"]]
    header = [*layout["headers"], *(["notes"] if notes else [])]
    body = [[row[place] for place in places] + notes for row in rows]
    if layout["has_empty_rows"]:
        body.insert(len(body) // 2, [""] * len(header))
    if layout["repeats_header"]:
        body.insert(len(body), list(header))
    return [*([title] for title in layout["titles"]), header, *body], len(layout["titles"])


def write_text(path, cells, draw):
    mark = draw(st.sampled_from(",;\t|"))
    codec = draw(st.sampled_from(ENCODINGS))
    out = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    tail = [""] * draw(st.integers(0, 2))
    writer = csv.writer(out, delimiter=mark, quoting=quoting, lineterminator=end)
    writer.writerows([[*row, *tail] for row in cells])
    text = (f"sep={mark}{end}" if draw(st.booleans()) else "") + out.getvalue()
    try:
        path.write_bytes(text.encode(codec))
    except UnicodeEncodeError:
        path.write_bytes(text.encode(codec := "utf-8"))
    event(f"text, {codec}")
    return codec


def typed(cell, is_old):
    """A cell as a spreadsheet program makes it of typed text."""
    if re.fullmatch("0|[1-9][0-9]{0,8}", cell):
        return int(cell)
    if re.fullmatch("0[0-9]{2}", cell) and is_old:
        return Padded(int(cell))
    if cell in ("TRUE", "FALSE"):
        return cell == "TRUE"
    if cell in ERRORS and is_old:
        return Error(cell)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", cell) and not is_old:
        return datetime.datetime.fromisoformat(cell)
    return cell


def write_workbook(path, rows, layout, draw):
    is_typed, is_old = draw(st.booleans()), path.suffix == ".xls"
    sheets = [[row] for row in rows] if draw(st.booleans()) else [rows]
    is_merged = len(sheets) == 1 and draw(st.booleans())
    tables, blocks = [], []
    for part in sheets:
        cells, top = lay_out(part, layout)
        column = layout["order"].index("subject")
        if is_merged:
            for i in range(len(cells) - 1, top + 1, -1):
                above = cells[i - 1][column] if i > top + 1 else ""
                if above and cells[i][column] == above:
                    cells[i][column] = ""
                    blocks.append((i - 1, i))
        if is_typed:
            cells = [[typed(cell, is_old) for cell in row] for row in cells]
        tables.append(cells)
    joined = []
    for first, last in sorted(blocks):  # rows 3 and 4, and rows 4 and 5, are rows 3 to 5
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    event(f"{path.suffix}, typed {is_typed}, {'merged' if joined else 'plain'}")
    names = [f"s{i}" for i in range(len(tables))]
    if is_old:
        merged = [(first, last, column) for first, last in joined]
        return write_xls(path, *tables, names=names, merged=merged)
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, cells in zip(names, tables, strict=True):
        page = book.create_sheet(name)
        for row in cells:
            page.append([None if cell == "" else cell for cell in row])
    for first, last in joined:
        page.merge_cells(
            start_row=first + 1, end_row=last + 1, start_column=column + 1, end_column=column + 1
        )
    book.save(path)
    return path


@settings(max_examples=NUM_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), layouts(), st.sampled_from([".csv", ".csv", ".xlsx", ".xls"]), st.data())
def test_the_same_clips_in_every_format(rows, layout, suffix, data):
    if data.draw(st.booleans()):
        rows = [*rows, rows[0]]  # a row stands twice
    with tempfile.TemporaryDirectory() as name:
        path, codec = Path(name) / f"table{suffix}", ""
        if suffix == ".csv":
            codec = write_text(path, lay_out(rows, layout)[0], data.draw)
        else:
            write_workbook(path, rows, layout, data.draw)
        clips, remarks = answer(path)
    bad = [cell for row in rows for cell in row[:2] if re.search(r"[/\\*?]|^\.{1,2}$", tidy(cell))]
    if clips is None:
        assert bad or "encoding" in remarks[0] or "not UTF-8" in remarks[0], remarks
        event("a message")
        return
    titles = {"cp1252": "Windows-1252", "gb18030": "GB18030"}
    said = [line for line in remarks if "is not UTF-8; it was read as" in line]
    if said and titles.get(codec, "") not in said[0]:
        event("an encoding that was said, and is wrong")
        return
    assert clips == expected(rows)
    lost = sum(expected(rows).values()) < len(rows)
    assert not lost or any("left out" in line for line in remarks)
