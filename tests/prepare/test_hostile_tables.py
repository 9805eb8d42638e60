"""Spreadsheets that are damaged, locked or made to cost memory end in one message."""

from __future__ import annotations

import os
import re
import tracemalloc
import zipfile

import openpyxl
import pytest
from biff_writer import Error, Padded, write_xls
from source_helpers import found, read, write_sheet

from mexjax.errors import DataError
from mexjax.prepare.sources import texts

HEADER = ["subject", "clip", "onset", "apex", "offset", "emotion", "au"]
ROWS = [["anna", "c1", 1, 5, 9, "fear", "4"], ["bert", "c2", 1, 5, 9, "happy", "12"]]
SHEET = "xl/worksheets/sheet1.xml"


def parts_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, **changes):
    """The same workbook with other parts; a change gets the bytes of a part."""
    parts = parts_of(path)
    for name, change in changes.items():
        parts[name] = change(parts.get(name, b""))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def refused(path):
    """The message, in which the file is named."""
    with pytest.raises(DataError) as error:
        read("csv", path.parent, spreadsheet=path)
    text = str(error.value)
    assert path.name in text and len(text) < 500 and "\n" not in text
    return text


def refused_cheaply(path):
    """The message, for which little memory was spent."""
    tracemalloc.start()
    try:
        text = refused(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60e6
    return text


def table(tmp_path):
    return write_sheet(tmp_path / "table.xlsx", [HEADER, *ROWS])


@pytest.mark.parametrize("part", [SHEET, "xl/media/picture.bin"])
def test_a_zip_bomb_is_not_unpacked(tmp_path, part):
    path = table(tmp_path)
    rewrite(path, **{part: lambda data: data + b" " * 300_000_000})
    assert path.stat().st_size < 2**20
    assert "unpacks to 300" in refused_cheaply(path)


def test_a_directory_that_lies_does_not_help(tmp_path):
    path = table(tmp_path)
    rewrite(path, **{SHEET: lambda data: data + b" " * 200_000_000})
    size = re.escape(
        (len(parts_of(table(tmp_path / "x"))[SHEET]) + 200_000_000).to_bytes(4, "little")
    )
    data = path.read_bytes()
    lying, count = re.subn(size, (1000).to_bytes(4, "little"), data)
    assert count >= 1
    path.write_bytes(lying)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo(SHEET).file_size == 1000
    assert "Cannot read the spreadsheet" in refused_cheaply(path)


def test_millions_of_cells_are_not_made(tmp_path):
    path = table(tmp_path)
    many = b"<row>" + b"<c/>" * 3_000_000 + b"</row></sheetData>"
    rewrite(path, **{SHEET: lambda data: data.replace(b"</sheetData>", many)})
    assert "more than 2097152 cells and other elements" in refused_cheaply(path)


def test_a_cell_in_the_last_corner_costs_little(tmp_path):
    path = table(tmp_path)
    corner = b'<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t>x</t></is></c></row>'
    rewrite(path, **{SHEET: lambda data: data.replace(b"</sheetData>", corner + b"</sheetData>")})
    reading = read("csv", tmp_path, spreadsheet=path)
    assert reading.table["clip"].tolist() == ["c1", "c2"]


@pytest.mark.parametrize("row", ["1048577", "99999999999999"])
def test_a_row_that_no_program_has(tmp_path, row):
    path = table(tmp_path)
    far = f'<row r="{row}"><c t="n"><v>1</v></c></row></sheetData>'.encode()
    rewrite(path, **{SHEET: lambda data: data.replace(b"</sheetData>", far)})
    assert "a row behind row 1048576" in refused(path)


def test_formatted_rows_to_the_end_are_read(tmp_path):
    path = table(tmp_path)
    rows = b"".join(b'<row r="%d" s="1"/>' % n for n in range(4, 60_000))
    claim = b'<dimension ref="A1:XFD1048576"/>'
    rewrite(
        path,
        **{
            SHEET: lambda data: re.sub(b"<dimension [^>]*>", claim, data).replace(
                b"</sheetData>", rows + b"</sheetData>"
            )
        },
    )
    assert len(read("csv", tmp_path, spreadsheet=path).table) == 2


def test_merged_cells_over_everything(tmp_path):
    path = table(tmp_path)
    ranges = b'<mergeCell ref="A1:XFD1048576"/>' * 2
    merged = b'</sheetData><mergeCells count="2">' + ranges + b"</mergeCells>"
    rewrite(path, **{SHEET: lambda data: data.replace(b"</sheetData>", merged)})
    assert read("csv", tmp_path, spreadsheet=path).table["clip"].tolist() == ["c1", "c2"]
    many = b'<mergeCell ref="A1:B1048576"/>' * 30_000
    merged = b"</sheetData><mergeCells>" + many + b"</mergeCells>"
    far = b'<row r="1048576"><c><v>1</v></c></row>'
    rewrite(
        path,
        **{SHEET: lambda data: data.split(b"</sheetData>")[0] + far + merged + b"</worksheet>"},
    )
    assert "merged cells that lie on each other" in refused(path)


@pytest.mark.parametrize("part", [SHEET, "xl/workbook.xml", "xl/styles.xml", "[Content_Types].xml"])
@pytest.mark.parametrize(
    "cut", [lambda data: data[:-40], lambda data: b"", lambda data: b"\0" * 99]
)
def test_damaged_parts(tmp_path, part, cut):
    refused(rewrite(table(tmp_path), **{part: cut}))


def test_damaged_streams(tmp_path):
    path = table(tmp_path)
    data = path.read_bytes()
    for place in range(60, len(data), len(data) // 40):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            assert read("csv", tmp_path, spreadsheet=path).table["clip"].tolist() == ["c1", "c2"]
        except DataError as error:
            assert "table.xlsx" in str(error)
        path.write_bytes(data[:place])
        refused(path)


def test_entities_do_not_expand(tmp_path):
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "%s">' % (b"x" * 1000)
    bomb += b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 20) for i in range(9))
    path = table(tmp_path)
    rewrite(path, **{SHEET: lambda data: bomb + b"]>" + data.replace(b"anna", b"&j;")})
    refused_cheaply(path)


@pytest.mark.parametrize("suffix", ["xlsx", "xls"])
def test_a_locked_workbook(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    name = "EncryptedPackage".encode("utf-16-le")
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + name + bytes(500))
    assert "locked by a password" in refused(path)


def test_an_encrypted_zip(tmp_path):
    path = table(tmp_path)
    data = path.read_bytes()
    for magic, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data = re.sub(
            re.escape(magic) + b"(?s:.{%d})" % (place - 4 + 1),
            lambda match: match[0][:-1] + bytes([match[0][-1] | 1]),
            data,
        )
    path.write_bytes(data)
    assert "encrypted" in refused(path)


def test_other_kinds_of_files(tmp_path):
    for name, content, says in (
        ("a.xlsx", {"mimetype": b"application/vnd.oasis.opendocument.spreadsheet"}, "OpenDocument"),
        ("b.xlsx", {"[Content_Types].xml": b"", "xl/workbook.bin": b""}, "an .xlsb file"),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for part, data in content.items():
                archive.writestr(part, data)
        assert says in refused(tmp_path / name)
    for name, content, says in (
        ("c.xls", b"\xef\xbb\xbf <HTML><table>", "a web page"),
        ("d.xls", b"\x09\x08" + os.urandom(400), "Cannot read"),
        ("e.xls", bytes(400), "Cannot read"),
        ("f.xlsx", b"subject,clip", "Cannot read"),
        ("g.csv", b"", "empty"),
        ("h.csv", b"\n\n\n", "is not the spreadsheet"),
    ):
        (tmp_path / name).write_bytes(content)
        assert says in refused(tmp_path / name)
    (tmp_path / "i.csv").mkdir()
    assert "is a folder" in refused(tmp_path / "i.csv")
    os.mkfifo(tmp_path / "j.xlsx")
    assert "a pipe or a device" in refused(tmp_path / "j.xlsx")
    assert "There is no spreadsheet" in refused(tmp_path / "k.csv")
    with (tmp_path / "l.csv").open("wb") as file:
        file.truncate(2**40)
    assert "more than any table" in refused(tmp_path / "l.csv")


def test_a_text_of_separators(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_bytes(b"subject,clip\n" + b"," * 500_000)
    assert "row 2: more than 4194304 cells in all or 1024 in a row" in refused(path)
    monkeypatch.setattr(texts, "MAX_CELLS", 2**12)
    path.write_bytes(b"subject,clip\n" + b",,,\n" * 840)
    assert "row 820: more than 4096 cells" in refused(path)


def test_a_workbook_under_another_name(tmp_path):
    path = table(tmp_path).rename(tmp_path / "table.csv")
    assert len(read("csv", tmp_path, spreadsheet=path).table) == 2


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "xls"])
def test_errors_of_the_program_are_empty_cells(tmp_path, suffix):
    rows = [["#REF!", "c1", 1, 5, 9, "fear", "4"], ["bert", "c2", 1, "#N/A", 9, "#NAME?", "#N/A"]]
    if suffix == "xls":
        rows = [[Error(c) if str(c).startswith("#") else c for c in row] for row in rows]
    write_sheet(tmp_path / f"table.{suffix}", [HEADER, *rows])
    reading = read("csv", tmp_path)
    assert reading.table["subject"].tolist() == ["csv/bert"]
    assert reading.table[["apex", "emotion", "au"]].to_numpy().tolist() == [[5, "", ""]]
    assert found(reading, "4 cells hold errors of the spreadsheet program")
    assert found(reading, "(A2 #REF!, D3 #N/A, F3 #NAME?, G3 #N/A)")
    assert found(reading, "row 2: no subject or no clip name, left out")


def test_formulas_that_were_never_calculated(tmp_path):
    write_sheet(tmp_path / "table.xlsx", [HEADER, *ROWS, ["carl", '="c"&1', 1, "=1+4", 9, "", ""]])
    reading = read("csv", tmp_path)
    assert reading.table["clip"].tolist() == ["c1", "c2"]
    assert found(reading, "2 cells hold formulas that were never calculated")
    assert found(reading, "(B4, D4)")


def test_formulas_with_values(tmp_path):
    path = table(tmp_path)
    row = (
        b'<row r="4"><c r="A4" t="str"><f>x</f><v>carl</v></c><c r="B4"><f>1+2</f><v>3</v></c>'
        b'<c r="C4"><f>1</f><v>1</v></c><c r="E4"><f>9</f><v>9</v></c>'
        b'<c r="F4" t="str"><f>""</f><v></v></c></row></sheetData>'
    )
    rewrite(path, **{SHEET: lambda data: data.replace(b"</sheetData>", row)})
    reading = read("csv", tmp_path, spreadsheet=path)
    assert reading.table["clip"].tolist() == ["c1", "c2", "3"]
    assert reading.table["subject"].tolist()[2] == "csv/carl"
    assert not found(reading, "never calculated")


def test_cells_are_read_as_they_are_shown(tmp_path):
    path = write_sheet(tmp_path / "table.xlsx", [HEADER, [7, True, 1.0, 5, 9, "fear_x000D_\n", 4]])
    book = openpyxl.load_workbook(path)
    book.active["A2"].number_format = "000"
    book.save(path)
    write_xls(tmp_path / "table.xls", [HEADER, [Padded(7), True, 1.0, 5, 9, "fear\r\n", 4]])
    for name in ("table.xlsx", "table.xls"):
        reading = read("csv", tmp_path, spreadsheet=tmp_path / name)
        assert reading.table["subject"].tolist() == ["csv/007"]
        assert reading.table["clip"].tolist() == ["TRUE"]
        assert reading.table[["onset", "emotion", "au"]].to_numpy().tolist() == [[1, "fear", "4"]]


def test_names_that_became_dates(tmp_path):
    import datetime

    day = datetime.datetime(2026, 3, 1)
    write_sheet(tmp_path / "table.xlsx", [HEADER, [day, "c1", 1, 5, 9, "fear", "4"]])
    reading = read("csv", tmp_path)
    assert reading.table["subject"].tolist() == ["csv/2026-03-01"]
    assert found(reading, "1 subjects or clips are dates (row 2: 2026-03-01)")
