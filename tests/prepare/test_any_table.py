"""Tables of any names in any format give the same clips, or a message."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from source_helpers import read, write_sheet

from mexjax.errors import DataError
from mexjax.protocol.names import fold, tidy

HEADER = ["subject", "clip", "onset", "apex", "offset", "emotion", "au"]
MARKS = "ab1 Jo\u00e9e\u0301\u200b\u00a0\uff11\u00ad\u2011-_.+NAn"
NAMES = st.one_of(
    st.text(MARKS, min_size=1, max_size=5),
    st.sampled_from(["NA", "None", "null", "nan", "01", "1", "1.0", "TRUE"]),
)
NUMBERS = st.one_of(st.integers(0, 30), st.sampled_from(["", "/", "NA", "x"]))
ROW = st.tuples(
    *(NAMES, NAMES, NUMBERS, NUMBERS, NUMBERS),
    st.sampled_from(["fear", "happy", "", "NA", "Sad\u200b"]),
    st.sampled_from(["4", "4+7", "", "0", "4 or 7", "none", "NA"]),
)


def answer(folder: Path, name: str, tables: list) -> tuple:
    """The clips of a table, or the message without the name of the file."""
    path = write_sheet(folder / name, *tables)
    try:
        table = read("csv", folder, spreadsheet=path).table
    except DataError as error:
        return (str(error).replace(name, ""),)
    columns = ["subject", "clip", "onset", "apex", "offset", "emotion", "au", "aus"]
    return tuple(map(tuple, table[columns].astype(str).to_numpy().tolist()))


@settings(max_examples=25, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=6))
def test_the_same_clips_in_every_format(rows):
    cells = [[str(cell) for cell in row] for row in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = answer(folder, "t.csv", [[HEADER, *cells]])
        assert answer(folder, "t.xlsx", [[HEADER, *cells]]) == text
        half = len(cells) // 2
        if half:
            joined = answer(folder, "u.xlsx", [[HEADER, *cells[:half]], [HEADER, *cells[half:]]])
            assert len(text) == 1 or joined == text
        if len(text) > 1:
            subjects = {row[0] for row in text}
            assert subjects <= {f"csv/{tidy(row[0])}" for row in cells}
            assert len({fold(subject) for subject in subjects}) == len(subjects)
            clips = [row[:2] for row in text]
            assert len(set(clips)) == len(clips)
