"""Tables of text: their separator is that of the header, and an assumed encoding is said."""

from __future__ import annotations

import os

import numpy as np
import pytest
from source_helpers import found, read

from mexjax.errors import DataError
from mexjax.prepare.landmark_table import LandmarkTable

HEADER = "subject,clip,onset,apex,offset,emotion,notes"
ROW = "anna,c1,1,5,9,fear,"


def write(tmp_path, text, encoding="utf-8", name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def clips(reading):
    columns = ["subject", "clip", "onset", "apex", "offset", "emotion"]
    return reading.table[columns].to_numpy().tolist()


ONE = [["csv/anna", "c1", 1, 5, 9, "fear"]]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_header_decides_the_separator(tmp_path, mark, end):
    # The notes hold more of every other separator than the table has of its own.
    notes = '"' + ",;\t|".replace(mark, "") * 30 + '"'
    lines = ["my clips, and; what | they show", "", HEADER.replace(",", mark)]
    lines += [ROW.replace(",", mark) + notes]
    write(tmp_path, end.join(lines) + end)
    reading = read("csv", tmp_path)
    assert clips(reading) == ONE
    assert found(reading, "row 4)") and not found(reading, "UTF")


def test_notes_without_quotes_may_hold_other_separators(tmp_path):
    write(tmp_path, HEADER.replace(",", ";") + "\nanna;c1;1;5;9;fear;she said a, b, c, d, e, f, g")
    assert clips(read("csv", tmp_path)) == ONE


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "\ufeffsep=;"])
def test_the_order_of_excel(tmp_path, first):
    write(tmp_path, first + "\r\nsubject;clip;onset;offset\r\nanna;c1;1;9\r\n")
    reading = read("csv", tmp_path)
    assert clips(reading) == [["csv/anna", "c1", 1, 5, 9, ""]]
    assert found(reading, "anna/c1 (row 2)")  # as Excel counts, which hides the order


def test_cells_of_several_lines_and_marks_inside(tmp_path):
    write(
        tmp_path, HEADER + '\nanna,c1,1,5,9,fear,"a ""b"",\nc\r\nd"\nbert,c1,1,5,9,fear,5" away\n'
    )
    reading = read("csv", tmp_path)
    assert clips(reading) == [*ONE, ["csv/bert", "c1", 1, 5, 9, "fear"]]


def test_blanks_around_quotes(tmp_path):
    write(tmp_path, HEADER + '\n"anna" , "c1", 1, 5, 9, "fear" , "a, b"\n')
    assert clips(read("csv", tmp_path)) == ONE


@pytest.mark.parametrize("last", ["", '\nbert,c2,1,5,9,fear,"x"y'])
def test_a_mark_that_is_not_closed_swallows_no_row(tmp_path, last):
    write(tmp_path, f'{HEADER}\n{ROW}"light\nbert,c1,1,5,9,fear,{last}')
    with pytest.raises(DataError, match=r"table.csv, row 2: a quotation mark is not closed"):
        read("csv", tmp_path, spreadsheet=tmp_path / "table.csv")


def test_trailing_separators_and_headers_without_a_name(tmp_path):
    write(tmp_path, HEADER + ",,\n" + ROW + ",,\n,,,,,,,,\nbert,c1,1,5,9,fear,,x,\ncarl,c1,1,5,9\n")
    reading = read("csv", tmp_path)
    assert reading.table["subject"].tolist() == ["csv/anna", "csv/bert", "csv/carl"]


def test_a_cell_too_many_is_refused(tmp_path):
    write(tmp_path, "subject,clip,fps,onset,offset\nanna,c0,30,1,9\nanna,c1,29,97,1,9\n")
    with pytest.raises(DataError, match=r"row 3 has 6 cells under 5 headers.*in quotes"):
        read("csv", tmp_path, spreadsheet=tmp_path / "table.csv")


def test_decimal_commas(tmp_path):
    write(tmp_path, "subject;clip;fps;onset;offset\nanna;c1;29,97;1,0;9,00\nanna;c2;30;1,5;1,000\n")
    reading = read("csv", tmp_path)
    assert reading.table["fps"].tolist() == [29.97]
    assert clips(reading)[0][2:5] == [1, 5, 9]
    assert found(reading, "onset: Expected a frame number, found '1,5'")
    assert found(reading, "offset: Expected a frame number, found '1,000'")  # one, or a thousand?


def test_headers_that_stand_twice(tmp_path):
    write(tmp_path, "subject,clip,onset,offset,Onset,clip\nanna,c1,1,9,1,d1\nbert,c2,1,9,1,c2\n")
    reading = read("csv", tmp_path)
    assert reading.table["clip"].tolist() == ["c1", "c2"]
    (line,) = found(reading, "stands over columns")
    assert "'clip' stands over columns 2 and 6, which differ ('c1' and 'd1')" in line


def test_a_header_that_is_repeated_is_no_clip(tmp_path):
    write(tmp_path, f"{HEADER}\n{ROW}\n{HEADER}\nbert,c1,1,5,9,fear,\n")
    reading = read("csv", tmp_path)
    assert reading.table["subject"].tolist() == ["csv/anna", "csv/bert"]
    assert found(reading, "the row of headers stands 2 times and is no clip")


@pytest.mark.parametrize(
    ("encoding", "name", "says"),
    [
        ("utf-8", "Jos\u00e9", ""),
        ("utf-8-sig", "Jos\u00e9", ""),
        ("utf-16", "Jos\u00e9", "was read as UTF-16, as it says"),
        ("utf-16-le", "Jos\u00e9", "no mark of its encoding; it was read as UTF-16"),
        ("utf-16-be", "\u5f20\u4e09", "no mark of its encoding; it was read as UTF-16"),
        ("utf-32", "Jos\u00e9", "was read as UTF-32"),
        ("cp1252", "Jos\u00e9", "is not UTF-8; it was read as Windows-1252"),
        ("cp1252", "Andr\u00e9s", "is not UTF-8; it was read as Windows-1252"),
        ("cp1252", "M\u00fcller", "is not UTF-8; it was read as Windows-1252"),
        ("gb18030", "\u5f20\u4e09", "is not UTF-8; it was read as GB18030"),
        ("gb18030", "\u738b\u5c0f\u660e", "is not UTF-8; it was read as GB18030"),
    ],
)
def test_encodings(tmp_path, encoding, name, says):
    write(tmp_path, f"{HEADER}\n{ROW}\n{name},c2,1,5,9,happy,\n", encoding)
    reading = read("csv", tmp_path)
    assert clips(reading) == [*ONE, [f"csv/{name}", "c2", 1, 5, 9, "happiness"]]
    lines = [line for line in reading.problems if "UTF" in line]
    assert len(lines) == bool(says) and all(says in line for line in lines)
    assert all(f"(line 3: '{name}," in line for line in lines if "not UTF-8" in line)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"caf\xe9,c1,1,5,9,fear,\x81\x8d\n", r"line 3: these bytes .* GB18030 or Windows-1252"),
        (b"Jos\xc3\xa9,c2,1,5,9,fear,\nJos\xe9,c3,1,5,9,fear,\n", "line 4: .* though other lines"),
        (bytes(300), "line 3 holds bytes of value 0"),
        (b"anna\0,c1,1,5,9,fear,\n", "line 3 holds bytes of value 0"),
    ],
)
def test_bytes_of_no_encoding_name_their_line(tmp_path, content, says):
    path = write(tmp_path, f"{HEADER}\n{ROW}\n".encode() + content)
    with pytest.raises(DataError, match=says) as error:
        read("csv", tmp_path, spreadsheet=path)
    assert len(str(error.value)) < 400


def test_a_damaged_mark_names_its_line(tmp_path):
    path = write(tmp_path, f"{HEADER}\n{ROW}\n".encode("utf-16") + b"\n")
    with pytest.raises(DataError, match=r"line 3: the file says that it is UTF-16"):
        read("csv", tmp_path, spreadsheet=path)


def test_text_under_the_name_of_a_workbook(tmp_path):
    path = write(tmp_path, f"{HEADER}\n{ROW}\n".replace(",", "\t"), "gb18030", "table.xls")
    assert clips(read("csv", tmp_path, spreadsheet=path)) == ONE


def test_tabs_in_a_tsv(tmp_path):
    write(tmp_path, f"{HEADER}\n{ROW}\n".replace(",", "\t"), name="table.tsv")
    assert clips(read("csv", tmp_path)) == ONE


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(DataError, match="is a pipe or a device"):
        read("csv", tmp_path, spreadsheet=tmp_path / "table.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_landmarks_as_other_programs_save_them(tmp_path, encoding):
    text = "sep=;\r\nclip;frame;x;y;w;h;notes\r\nJos\u00e9/c1;3;10,5;10;60.5;60,5;a, b, c\r\n"
    table = LandmarkTable(write(tmp_path, text, encoding))
    other = LandmarkTable(
        write(tmp_path, "clip,frame,x,y,w,h\nJos\u00e9/c1,3,10.5,10,60.5,60.5\n", name="b.csv")
    )
    image, key = np.zeros((100, 100)), ("csv/Jos\u00e9/c1", 3)
    assert np.array_equal(table(image, key).landmarks, other(image, key).landmarks)
    says = "it was read as Windows-1252" if encoding == "cp1252" else "has no row for clip"
    with pytest.raises(DataError, match=says):
        table(image, ("csv/Jose/c1", 3))
