"""Classes by number, by a map's name, by a table's words and by a file that merges words."""

from __future__ import annotations

import pandas as pd
import pytest
from protocol_helpers import Config

import mexjax
from mexjax.config import check_values
from mexjax.errors import ConfigError, DataError
from mexjax.protocol.class_file import read_class_map
from mexjax.protocol.labelling import check_classes, label_emotions, published_maps, remarks_on
from mexjax.protocol.splits import ProtocolError, label_table, make_folds

WORDS = ["joie", "fear", "joie", "happiness", "", "positive+fear", "happiness"]


def table_of(words=WORDS, dataset="csv", subjects="aabbccc"):
    return pd.DataFrame(
        {
            "dataset": dataset,
            "subject": [f"{dataset}/{name}" for name in subjects[: len(words)]],
            "clip": [f"c{i}" for i in range(len(words))],
            "emotion": words,
        }
    )


@pytest.mark.parametrize(
    ("classes", "labels", "names"),
    [
        ("own", [0, 1, 0, 2, -1, -1, 2], ("joie", "fear", "happiness")),
        ("happiness,joie", [1, -1, 1, 0, -1, -1, 0], ("happiness", "joie")),
        (("Fear", "HAPPY"), [-1, 0, -1, 1, -1, -1, 1], ("fear", "happiness")),
        (["JOIE ", "ｆｅａｒ"], [0, 1, 0, -1, -1, -1, -1], ("joie", "fear")),
    ],
)
@pytest.mark.parametrize("dataset", ["csv", "folder", "casme2"])
def test_words_of_the_table_are_classes(classes, labels, names, dataset):
    found = label_emotions(table_of(dataset=dataset), classes)
    assert (found[0].tolist(), found[1]) == (labels, names)
    assert label_table(table_of(), Config(classes=classes))[1] == names


def test_a_number_is_a_published_map_for_own_words_that_it_knows():
    words = ["happiness", "disgust", "surprise", "others", "fear", "surprise", "anger"]
    labels, names = label_emotions(table_of(words), 3)
    assert names == ("negative", "positive", "surprise")
    assert labels.tolist() == [1, 0, 2, -1, 0, 2, 0]
    with pytest.raises(DataError, match=r"Unknown emotion 'joie'.*Set protocol\.classes=own"):
        label_emotions(table_of(), 3)
    with pytest.raises(DataError, match=r"classes=5 means .*no clip is of repression.*=own"):
        label_emotions(table_of(words), 5)


def test_a_published_map_by_name_serves_any_dataset():
    words = ["happiness", "disgust", "surprise", "others", "fear", "surprise", "happiness"]
    labels, names = label_emotions(table_of(words), "casme2_5")
    assert names == ("surprise", "happiness", "disgust", "repression", "others")
    assert labels.tolist() == [1, 2, 0, 4, -1, 0, 1]
    order = label_emotions(table_of(words), "tsfmicro_casme2_5")[1]
    assert order == ("happiness", "repression", "disgust", "surprise", "others")
    assert "csv_3" not in published_maps() and "samm_7" in published_maps()
    with pytest.raises(DataError, match=r"casme2_5 does not know the emotion joie \(2 clips\)"):
        label_emotions(table_of(), "casme2_5")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("casme2_6", r"Did you mean casme2_\d\?"),
        ("onw", r"Did you mean own\?"),
        ("joie", "two or more words with commas"),
        ("a,A", "has the class a twice"),
        ("a,", "gives no classes"),
        ("", "gives no classes"),
        (True, "gives no classes"),
        ((), "gives no classes"),
    ],
)
def test_classes_that_cannot_be_understood(classes, message):
    with pytest.raises(ConfigError, match=message):
        check_classes(classes)


def test_words_that_give_no_two_classes():
    with pytest.raises(DataError, match=r"needs clips of two classes; found fear, without an"):
        label_emotions(table_of(["fear", "", "fear"]), "own")
    with pytest.raises(DataError, match=r"'sadness'\. .*Known: fear, happiness, joie\. No clip"):
        label_emotions(table_of(), "joie,sad")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_file_merges_words(tmp_path, delimiter):
    path = tmp_path / "map.csv"
    lines = ["\ufeffWord,Class", "Joie,Good mood", "HAPPY,Good mood", "", "fear,Bad"]
    lines.append("positive + Fear,")
    path.write_text("\n".join(lines).replace(",", delimiter), encoding="utf-8")
    table = table_of()
    with pytest.raises(DataError, match=r"no line for the emotion positive\+fear"):
        label_emotions(table, "own", class_map=str(write(tmp_path, "joie,a\nfear,b\nhappiness,a")))
    labels, names = label_emotions(table, "own", class_map=str(path))
    assert names == ("Good mood", "Bad") and labels.tolist() == [0, 1, 0, 0, -1, -1, 0]
    labels, names = label_emotions(table, "bad,good mood", class_map=str(path))
    assert names == ("Bad", "Good mood") and labels.tolist() == [1, 0, 1, 1, -1, -1, 1]
    assert label_emotions(table, 2, class_map=str(path))[1] == ("Good mood", "Bad")
    with pytest.raises(ConfigError, match=r"classes=3, but .* has 2 classes: Good mood, Bad"):
        label_emotions(table, 3, class_map=str(path))
    with pytest.raises(DataError, match=r"Unknown class of .* 'Bat'\. Did you mean 'Bad'"):
        label_emotions(table, "Bat,good mood", class_map=str(path))
    with pytest.raises(ConfigError, match=r"casme2_5 is a published map, and .* another one"):
        label_emotions(table, "casme2_5", class_map=str(path))


def write(folder, text, name="other.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no line word,class"),
        ("word,class\n", "has no line word,class"),
        ("joie,good,3\n", r"line 1: expected word,class, found joie,good,3"),
        (",good\n", "line 1: expected word,class"),
        ("joie,good\nJoie,bad\n", "line 2: joie is bad here and good above"),
        (b"joie,\xff\xfe\n", "is no UTF-8 text"),
        ('joie,"good\n', "cannot be read"),
        ("x," * 2**20, "larger than 1 MiB"),
    ],
)
def test_files_that_are_no_class_map(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_class_map(write(tmp_path, text))
    with pytest.raises(DataError, match=r"Cannot read protocol\.class_map=.*none\.csv"):
        read_class_map(tmp_path / "none.csv")


def test_rare_classes_are_told():
    table = table_of(["joie", "fear", "joie", "happiness", "happiness"], subjects="aabcc")
    labels, names = label_emotions(table, "own")
    lines = remarks_on(table, labels, names, classes="own", protocol="loso")
    assert lines == (
        "Class fear: its one clip is of one subject, csv/a; the fold that holds this subject out"
        " is trained without the class.",
        "Class happiness: all 2 clips are of one subject, csv/c; the fold that holds this subject"
        " out is trained without the class.",
    )
    assert remarks_on(table, labels, names, classes="own", protocol="cross_dataset") == ()
    labels, names = label_emotions(table_of(["happiness", "others"]), "casme2_4")
    (line,) = remarks_on(table, labels, names, classes="casme2_4", protocol="cross_dataset")
    assert line.startswith("No clip is of the class negative, surprise")


def test_one_subject_is_told_with_the_remedy():
    table = table_of(["joie", "fear", "joie"], dataset="folder", subjects=["unknown"] * 3)
    labels, _ = label_emotions(table, "own")
    for name in ("loso", "kfold_by_subject"):
        with pytest.raises(ProtocolError, match=r"two subjects.*--layout=subject/emotion/clip"):
            make_folds(table, labels, Config(name=name, classes="own"))
    table = table.assign(dataset="casme2", subject="casme2/1")
    with pytest.raises(ProtocolError, match=r"found \['casme2/1'\]\.$"):
        make_folds(table, labels, Config(classes="own"))


def test_the_composite_protocol_keeps_its_three_classes():
    table = pd.concat([table_of(), table_of(dataset="casme2")], ignore_index=True)
    config = Config(name="composite", classes="own")
    with pytest.raises(ProtocolError, match=r"classes=3; found casme2, csv with own classes"):
        make_folds(table, label_table(table, config)[0], config)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("own", "own"),
        ("3", 3),
        (3, 3),
        (("surprise", "happiness"), "surprise,happiness"),
        (" surprise, others ", "surprise, others"),
    ],
)
def test_the_key_takes_numbers_and_words(override, value):
    config = mexjax.load_config("fdp", {"protocol.classes": override})
    check_values(config)
    assert config.protocol.classes == value and type(config.protocol.classes) is type(value)


def test_the_key_refuses_other_values(tmp_path):
    for override, message in (
        (2.5, "whole number or words"),
        (True, "whole number or words"),
        (1, "at least 2"),
        ("1001", "at most 1000"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_values(mexjax.load_config("fdp", {"protocol.classes": override}))
    with pytest.raises(ConfigError, match=r"class_map=m\.csv has no effect with protocol\.task=au"):
        mexjax.load_config("micro_au_clip", {"protocol.class_map": "m.csv"})
    # A file of classes says how many there are; a card may set words, too.
    config = mexjax.load_config("fdp", {"protocol.class_map": "~/m.csv"})
    assert config.protocol.classes == "own" and not config.protocol.class_map.startswith("~")
    assert mexjax.load_config("fdp", {"protocol.class_map": "m", "protocol.classes": 5}).protocol
    card = write(
        tmp_path,
        "import mexjax\ndef get_config(variant=''):\n    config = mexjax.load_config('fdp')\n"
        "    config.protocol.classes = 'a,b'\n    return config\n",
        "card.py",
    )
    assert mexjax.load_config(card).protocol.classes == "a,b"
