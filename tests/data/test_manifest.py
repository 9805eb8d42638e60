"""The manifest survives the disk, and a damaged one is refused with a sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mexjax.data import manifest, synthetic
from mexjax.data.manifest import make_table, read_manifest, write_manifest
from mexjax.errors import DataError, WorkdirError


def make_row(**changes):
    row = {
        "dataset": "casme2",
        "subject": "casme2/01",
        "clip": "EP02_01f",
        "onset": 46,
        "apex": 59,
        "offset": 86,
        "fps": 200.0,
        "n_frames": 41,
        "emotion": "happiness",
        "au": "R12+4?",
        "aus": ["12"],
        "aus_unsure": ["4"],
        "landmark_source": "",
        "notes": "",
    }
    return row | changes


def test_round_trip(tmp_path):
    rows = [make_row(), make_row(clip="größe 漢字", aus=[], aus_unsure=[], notes="a; b")]
    table = make_table(rows)
    assert list(table.columns) == list(manifest.BASE)
    table["true_onset"] = [3, 4]  # a column the manifest does not know stays
    table["num_stored"] = np.array([41, 40], np.int32)  # stored with the manifest's type
    path = tmp_path / "manifest.parquet"
    write_manifest(table, path)
    write_manifest(table, path)  # over an old one
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.parquet"]
    back = read_manifest(path)
    pd.testing.assert_frame_equal(back, table, check_dtype=False)
    assert back["aus"].tolist() == [["12"], []] and type(back["aus"][0]) is list
    assert {back[name].dtype for name in ("onset", "offset", "num_stored")} == {np.dtype("int64")}


def test_an_empty_table_keeps_its_types(tmp_path):
    path = tmp_path / "manifest.parquet"
    write_manifest(make_table([]), path)
    assert len(read_manifest(path)) == 0
    assert read_manifest(path)["onset"].dtype == np.int64


def test_a_synthetic_table_is_a_manifest(tmp_path):
    plan = synthetic.make_plan(synthetic.SyntheticConfig(num_subjects=3, num_clips=6))
    table = synthetic.make_table(plan).assign(aus_unsure=[[] for _ in plan.clips])
    write_manifest(table, tmp_path / "manifest.parquet")
    back = read_manifest(tmp_path / "manifest.parquet")
    pd.testing.assert_frame_equal(back, table, check_dtype=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"onset": "x"}, "onset|int"),
        ({"onset": None}, "'onset'"),
        ({"aus": "12"}, "Expected a list in column 'aus', found '12'"),
    ],
)
def test_rows_of_another_type_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        make_table([make_row(**changes)])


def test_writing_needs_all_columns(tmp_path):
    table = make_table([make_row()]).drop(columns=["apex", "fps"])
    with pytest.raises(DataError, match="lacks the columns apex, fps"):
        write_manifest(table, tmp_path / "manifest.parquet")
    table = make_table([make_row()])
    table["onset"] = ["x"]
    with pytest.raises(DataError, match="does not fit"):
        write_manifest(table, tmp_path / "manifest.parquet")
    table["onset"] = [None]
    with pytest.raises(DataError, match="'onset' of its row 0"):
        write_manifest(table, tmp_path / "manifest.parquet")
    assert not list(tmp_path.iterdir())
    with pytest.raises(WorkdirError, match="Cannot write the manifest"):
        write_manifest(make_table([make_row()]), tmp_path / "no folder" / "manifest.parquet")


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "manifest.parquet"
    with pytest.raises(DataError, match="There is no manifest"):
        read_manifest(path)
    with pytest.raises(DataError, match="There is no manifest"):
        read_manifest(tmp_path)
    for content in (b"", b"PAR1 no table PAR1", b"\x80\x04pickle"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable Parquet file"):
            read_manifest(path)
    write_manifest(make_table([make_row()]), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_manifest(path)


def test_other_tables_are_refused(tmp_path):
    path = tmp_path / "manifest.parquet"
    write_manifest(make_table([make_row()]), path)
    with pytest.raises(DataError, match="lacks the columns shard; it has dataset, subject"):
        read_manifest(path, required=[*manifest.BASE, "shard"])
    whole = pq.read_table(path)
    pq.write_table(whole.drop_columns(["apex"]), path)
    with pytest.raises(DataError, match="lacks the columns apex"):
        read_manifest(path)
    words = pa.array(["early"])
    pq.write_table(whole.set_column(3, "onset", words), path)
    with pytest.raises(DataError, match="column of another type"):
        read_manifest(path)
    pq.write_table(whole.set_column(3, "onset", pa.array([None], pa.int64())), path)
    with pytest.raises(DataError, match="no value in column 'onset'"):
        read_manifest(path)


def test_every_flipped_bit_is_noticed(tmp_path):
    """Nothing else is ever read than what was written, whichever bit is another one."""
    path = tmp_path / "manifest.parquet"
    table = make_table([make_row(), make_row(clip="EP03_02", emotion="fear", aus=["4", "7"])])
    write_manifest(table, path)
    whole = path.read_bytes()
    num_refused = 0
    for place in range(0, len(whole), 3):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        try:
            back = read_manifest(path, is_remarked=False)
        except DataError as error:
            assert len(str(error)) < 600
            num_refused += 1
        else:
            pd.testing.assert_frame_equal(back, table, check_dtype=False)
    assert num_refused > len(whole) / 3 / 4
    for size in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="Prepare the dataset again"):
            read_manifest(path)


def test_a_value_changed_by_another_program_is_noticed(tmp_path, caplog):
    path = tmp_path / "manifest.parquet"
    write_manifest(make_table([make_row()]), path)
    whole = pq.read_table(path)
    other = whole.set_column(3, "onset", pa.array([47], pa.int64()))
    pq.write_table(other, path)
    with pytest.raises(DataError, match=r"damaged or was changed.*SHA-256.*Prepare"):
        read_manifest(path)
    # One without a digest, as older versions wrote it, is read with a remark, once.
    pq.write_table(other.replace_schema_metadata(None), path)
    for _ in range(2):
        assert read_manifest(path)["onset"].tolist() == [47]
    assert caplog.text.count("has no digest") == 1
