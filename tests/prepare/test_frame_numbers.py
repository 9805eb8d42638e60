"""Which digits of the names of images are their frame numbers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_helpers import found, numbers, read, write_frames, write_sheet

from mexjax.errors import DataError
from mexjax.prepare.sources.frame_numbers import number_images

HERE = Path("clip")


def number(names):
    by_number, left_out = number_images([HERE / name for name in names], HERE)
    return {key: path.name for key, path in by_number.items()}, [path.name for path in left_out]


@pytest.mark.parametrize(
    "pattern",
    [
        "frame_{:04d}_224x224.png",
        "img{}_v3.jpg",
        "EP02_01f_224_{:04d}.png",
        "reg_img{}.jpg",
        "{}.jpg",
        "006_{:05d}.jpg",
        "2024-05-01_{}_cam2.jpg",
        "IMG{}.JPG",
        "{:03d}-of-120.png",
    ],
)
def test_the_digits_that_vary_count(pattern):
    for wanted in (range(1, 6), (3, 9, 40)):
        names = {n: pattern.format(n) for n in wanted}
        assert number(list(names.values())) == (names, [])


def test_the_group_without_a_gap_counts_where_several_vary():
    times = {n: f"frame_{n:04d}_t{33 * n}.png" for n in range(1, 9)}
    assert number(list(times.values()))[0] == times
    twice = {n: f"{n}_of_{n}.png" for n in range(1, 9)}
    assert number(list(twice.values()))[0] == twice
    parts = {n: f"s{n // 5}_{n}.png" for n in range(1, 9)}  # the first group alone is no number
    assert number(list(parts.values()))[0] == parts


def test_two_readings_are_one_message_with_both():
    with pytest.raises(DataError, match=r"clip may be 1 to 8 or 201 to 208, as f_1_201\.png"):
        number([f"f_{n}_{n + 200}.png" for n in range(1, 9)])
    with pytest.raises(DataError, match=r"may be 1 to 9 or 33 to 297"):
        number([f"f_{n}_t{33 * n}.png" for n in (1, 2, 9)])


def test_images_of_several_shapes():
    assert number(["img1.jpg", "IMG2.jpg", "reg_img3.jpg"])[0].keys() == {1, 2, 3}
    odd = ["f_1_224x224.png", "f_2_224x224.png", "f_3_224x224_b.png", "cover.png"]
    assert number(odd) == (dict(zip((1, 2, 3), odd, strict=False)), ["cover.png"])
    with pytest.raises(DataError, match=r"two images with the frame number 1: img1\.jpg and reg"):
        number(["img1.jpg", "img2.jpg", "reg_img1.jpg", "reg_img2.jpg"])
    with pytest.raises(DataError, match="two images with the frame number 1"):
        number(["img1.jpg", "img1.png"])
    with pytest.raises(DataError, match="two images with the frame number"):
        number(["1_1.png", "1_2.png", "2_1.png", "2_2.png"])


@given(st.lists(st.from_regex(r"[a-c]?[0-9]{0,3}(_[0-9]{1,2})?", fullmatch=True), unique=True))
def test_any_names_give_each_image_one_number_or_a_message(stems):
    names = [f"{stem}.png" for stem in stems]
    try:
        by_number, left_out = number(names)
    except DataError as error:
        assert "clip" in str(error)
    else:
        assert sorted([*by_number.values(), *left_out]) == sorted(names)


def test_a_release_with_sizes_in_its_names(tmp_path):
    write_frames(tmp_path / "joy/a", range(5, 20), "frame_{:04d}_224x224.png")
    (tmp_path / "joy/a/thumb.png").touch()
    write_sheet(tmp_path / "t.csv", [["clip", "subject", "onset", "offset"], ["a", "s", 7, 12]])
    reading = read("folder", tmp_path)
    assert reading.table["num_missing_frames"].tolist() == [0]
    assert numbers("folder", tmp_path, reading.table.iloc[0]) == list(range(7, 13))
    assert found(reading, "thumb.png has no frame number and was left out")


@pytest.mark.parametrize("pattern", ["{}.png", "s1_{}.png", "Img_{}_x2.png"])
def test_key_frames_are_in_the_order_of_time(pattern):
    names = {n: pattern.format(word) for n, word in enumerate(("onset", "Apex", "OFFSET"), 1)}
    assert number(sorted(names.values())) == (names, [])
    two = {1: names[1], 2: names[3]}
    assert number(sorted(two.values())) == (two, [])


def test_numbers_that_no_name_holds_are_said(tmp_path):
    """The order of names need not be that of time."""
    for clip, names in (("a", "first last middle"), ("b", "offset onset apex"), ("c", "one")):
        for name in names.split():
            write_frames(tmp_path / "joy" / clip, [name], "{}.png")
    write_frames(tmp_path / "joy/d", "abcdefg", "{}.png")
    reading = read("folder", tmp_path)
    lines = found(reading, "numbered from 1 in this order")
    assert [line.rpartition(": ")[2] for line in lines] == [
        "first.png, last.png, middle.png.",
        "onset.png, apex.png, offset.png.",
        "a.png to g.png.",
    ]
    assert reading.table["apex"].tolist()[1] == 2
