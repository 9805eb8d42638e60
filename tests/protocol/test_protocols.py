"""Folds: who is on which side, what is refused, and class maps."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from protocol_helpers import Config

from mexjax.errors import DataError
from mexjax.protocol import classes, splits
from mexjax.protocol.fold_list import checked_folds
from mexjax.protocol.splits import Fold, ProtocolError


def make_table(subjects=6, clips=4, datasets=("synthetic",)):
    """Rows in an order that is not sorted, so that sorting is visible."""
    emotions = ("surprise", "happiness", "disgust", "repression")
    rows = [
        {
            "dataset": dataset,
            "subject": f"{dataset}/{s}",
            "clip": f"{s}_{c:03d}",
            "emotion": emotions[c % 4],
        }
        for c in range(clips)
        for dataset in datasets
        for s in range(subjects, 0, -1)
    ]
    return pd.DataFrame(rows)


def labels_of(table):
    return classes.label_clips(table, 5)[0]


def folds_of(table, **config):
    return splits.make_folds(table, labels_of(table), Config(**config))


def test_loso_holds_out_every_clip_once():
    table = make_table(subjects=11)
    folds = folds_of(table)
    # Natural order: 2 before 10.
    assert [fold.name for fold in folds] == [f"synthetic/{s}" for s in range(1, 12)]
    subjects = table["subject"].to_numpy()
    for fold in folds:
        assert set(subjects[fold.test]) == {fold.name}
        assert fold.name not in set(subjects[fold.train])
        assert len(fold.train) + len(fold.test) == len(table)
        assert (np.diff(fold.train) > 0).all() and not fold.validation.size
    held_out = np.concatenate([fold.test for fold in folds])
    assert sorted(held_out) == list(range(len(table)))


def test_a_test_fold_of_one_class_is_allowed():
    table = make_table()
    table.loc[table["subject"] == "synthetic/3", "emotion"] = "surprise"
    fold = folds_of(table)[2]
    assert set(labels_of(table)[fold.test]) == {0}


def test_clips_without_a_class_are_in_no_fold():
    table = make_table()
    table.loc[3, "emotion"] = "fear"
    for fold in folds_of(table):
        assert 3 not in np.concatenate([fold.train, fold.test])


def test_kfold_by_subject():
    table = make_table(subjects=7)
    folds = folds_of(table, name="kfold_by_subject", num_splits=3)
    assert [fold.name for fold in folds] == ["split_1", "split_2", "split_3"]
    subjects = table["subject"].to_numpy()
    parts = [set(subjects[fold.test]) for fold in folds]
    assert sorted(map(len, parts)) == [2, 2, 3] and len(set.union(*parts)) == 7
    same = splits.make_folds(table, labels_of(table), Config("kfold_by_subject", 5, 3), seed=0)
    other = splits.make_folds(table, labels_of(table), Config("kfold_by_subject", 5, 3), seed=1)
    assert [f.test.tolist() for f in same] == [f.test.tolist() for f in folds]
    assert [f.test.tolist() for f in other] != [f.test.tolist() for f in folds]
    with pytest.raises(ProtocolError, match=r"num_splits=9 .* 7 subjects"):
        folds_of(table, name="kfold_by_subject", num_splits=9)


def test_leave_one_dataset_out_and_cross_dataset():
    table = make_table(datasets=("casme2", "synthetic"))
    datasets = table["dataset"].to_numpy()
    folds = folds_of(table, name="leave_one_dataset_out")
    assert [fold.name for fold in folds] == ["casme2", "synthetic"]
    assert set(datasets[folds[0].test]) == {"casme2"}
    folds = folds_of(table, name="cross_dataset")
    assert [fold.name for fold in folds] == ["casme2_to_synthetic", "synthetic_to_casme2"]
    assert set(datasets[folds[0].train]) == {"casme2"}
    assert set(datasets[folds[0].test]) == {"synthetic"}
    with pytest.raises(ProtocolError, match="exactly two datasets, found 1"):
        folds_of(make_table(), name="cross_dataset")
    with pytest.raises(ProtocolError, match="at least two datasets"):
        folds_of(make_table(), name="leave_one_dataset_out")


def test_composite_is_three_class_loso_over_datasets():
    table = make_table(datasets=("casme2", "samm"))
    config = Config("composite", 3)
    labels, names = splits.label_table(table, config)
    assert names == ("negative", "positive", "surprise")
    folds = splits.make_folds(table, labels, config)
    assert len(folds) == 12 and folds[0].name == "casme2/1" and folds[6].name == "samm/1"
    for wrong in (Config("composite", 5), Config("composite", 3)):
        one = table if wrong.classes == 5 else make_table()
        with pytest.raises(ProtocolError, match="two or more datasets"):
            splits.make_folds(one, np.arange(len(one)) % 3, wrong)


def test_multi_label_tasks_need_no_classes():
    folds = splits.make_folds(make_table(), None, Config())
    assert len(folds) == 6


def test_inner_validation_is_by_subject_and_per_fold():
    table = make_table(subjects=6)
    config = Config(num_validation_subjects=2)
    folds = splits.make_folds(table, labels_of(table), config, seed=4)
    subjects = table["subject"].to_numpy()
    for fold in folds:
        assert len(set(subjects[fold.validation])) == 2
        assert len(set(subjects[fold.train])) == 3
    # Neither the row order nor the other folds matter.
    turned = table.iloc[::-1].reset_index(drop=True)
    again = splits.make_folds(turned, labels_of(turned), config, seed=4)
    for one, two in zip(folds, again, strict=True):
        names = turned["subject"].to_numpy()[two.validation]
        assert set(names) == set(subjects[one.validation])
    chosen = {tuple(sorted(set(subjects[fold.validation]))) for fold in folds}
    assert len(chosen) > 1
    with pytest.raises(ProtocolError, match=r"num_validation_subjects=5 .* 0 to 4"):
        folds_of(table, num_validation_subjects=5)


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(ProtocolError, match=r"Did you mean 'kfold_by_subject'.*composite"):
        folds_of(make_table(), name="kfold_by_subjects")
    assert issubclass(ProtocolError, ValueError)


def test_training_on_one_class_is_refused():
    table = make_table(subjects=3)
    table["emotion"] = np.where(table["subject"] == "synthetic/1", table["emotion"], "surprise")
    with pytest.raises(ProtocolError, match="'synthetic/1' is a fold with one class only"):
        folds_of(table)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.array([np.nan] * 24), "label of clip 'synthetic/6/6_000' is missing"),
        (np.zeros(24), "class numbers"),
        (np.full(24, -2), "class numbers"),
        (np.zeros(3, int), "one label a clip"),
        (np.full(24, -1), "None of the 24 clips"),
    ],
)
def test_wrong_labels(labels, text):
    with pytest.raises(ProtocolError, match=text):
        splits.make_folds(make_table(), labels, Config())


def test_wrong_tables():
    table = make_table()
    labels = labels_of(table)
    with pytest.raises(ProtocolError, match="lacks the columns clip"):
        splits.make_folds(table.drop(columns="clip"), labels, Config())
    twice = pd.concat([table, table.iloc[:1]], ignore_index=True)
    with pytest.raises(ProtocolError, match="'synthetic/6/6_000' twice"):
        splits.make_folds(twice, np.append(labels, 0), Config())
    bare = make_table(datasets=("casme2", "samm"))
    bare["subject"] = bare["subject"].str.split("/").str[1]
    with pytest.raises(ProtocolError, match="occurs in several datasets"):
        splits.make_folds(bare, np.arange(48) % 3, Config())
    table.loc[0, "subject"] = None
    with pytest.raises(ProtocolError, match="rows without"):
        splits.make_folds(table, labels, Config())


def fold(name="a", train=(0, 1, 2), validation=(), test=(3,)):
    arrays = (np.array(part, int) for part in (train, validation, test))
    return Fold(name, *arrays)


@pytest.mark.parametrize(
    ("folds", "text"),
    [
        ([], "at least one fold"),
        ([fold(train=())], "empty train side"),
        ([fold(test=())], "empty test side"),
        ([fold(train=(0, 0, 1))], "contains a clip twice: 's0/c0'"),
        ([fold(test=(4,))], "subject 's0' in train and test"),
        ([fold(train=(0, 1), validation=(4,))], "in train and validation"),
        ([fold(train=(1, 2), validation=(0,), test=(4,))], "in validation and test"),
        ([fold(), fold("b")], "held out twice, in folds 'a' and 'b'"),
    ],
)
def test_unsafe_folds_are_refused(folds, text):
    # Clips 0 and 4 are of one subject.
    table = pd.DataFrame({"subject": ["s0", "s1", "s2", "s3", "s0"], "clip": list("01234")})
    table["clip"] = "c" + table["clip"]
    with pytest.raises(ProtocolError, match=text):
        splits.check_folds(folds, table, np.arange(5))


def test_folds_survive_json():
    table = make_table()
    folds = folds_of(table, num_validation_subjects=1)
    clips = splits.clip_ids(table)
    content = splits.folds_to_json(folds, clips, "loso", ("a", "b"))
    assert content["schema"] == 1 and content["classes"] == ["a", "b"]
    assert content["folds"][0]["test"][0] == "synthetic/1/1_000"
    back = checked_folds(json.loads(json.dumps(content)))
    for one, two in zip(folds, back["folds"], strict=True):
        assert one.name == two["name"]
        for side in ("train", "validation", "test"):
            assert set(clips[getattr(one, side)]) == set(two[side])


def test_wrong_folds_json():
    table = make_table()
    good = splits.folds_to_json(folds_of(table), splits.clip_ids(table), "loso", ("a", "b"))
    first = good["folds"][0]
    for content, text in (
        ([], "expected an object with schema 1, found 'list'"),
        ({"schema": 2}, "found 2"),
        (good | {"classes": 3}, "expected the entries"),
        (good | {"folds": []}, "expected the entries"),
        (good | {"folds": [{"name": "a"}]}, "fold number 0 must have"),
        (good | {"folds": [first, first]}, "fold names must differ"),
        (good | {"folds": [first | {"test": "x/1/1"}]}, "must have the name|lists of clip ids"),
    ):
        with pytest.raises(ProtocolError, match=text):
            checked_folds(content)


def test_class_orders():
    assert classes.class_map("casme2", 5).names == (
        "surprise",
        "happiness",
        "disgust",
        "repression",
        "others",
    )
    assert classes.class_map("SAMM", 5).names == (
        "surprise",
        "happiness",
        "anger",
        "contempt",
        "others",
    )
    assert classes.class_map("synthetic", 5).names == classes.class_map("CASME II", 5).names
    assert classes.class_map("CAS(ME)³", 4).names[-1] == "others"
    order = classes.class_map("casme3a", 7, variant="tsfmicro").names
    assert order[0] == "anger" and len(order) == 7


def test_every_map_is_complete():
    for variant in classes.VARIANTS.values():
        for (dataset, count), found in variant.items():
            assert len(found.names) == count, dataset
            assert set(found.mapping.values()) == set(range(count))
            assert not set(found.mapping) & set(found.dropped)


def test_emotion_words_are_read_tolerantly():
    three = classes.class_map("samm", 3)
    assert three.label(" Happiness ") == three.label("happy") == three.names.index("positive")
    assert three.label("Contempt") == three.names.index("negative")
    assert three.label("Other") == classes.DROPPED
    four_dme = classes.class_map("fourd", 5)
    assert four_dme.label("Positive+Repression") == classes.DROPPED
    assert four_dme.label("Repression") == 3


def test_fear_and_sadness_of_casme2_depend_on_the_protocol():
    """Negative in three classes, but not in the composite list of MEGC 2019."""
    table = pd.DataFrame(
        {
            "dataset": "casme2",
            "subject": ["casme2/04", "casme2/04", "casme2/sub05"],
            "clip": ["EP12_01f", "EP12_02f", "EP01_01"],
            "emotion": ["disgust", "disgust", "fear"],
        }
    )
    assert classes.label_clips(table, 3)[0].tolist() == [0, 0, 0]
    assert classes.label_clips(table, 3, variant="megc")[0].tolist() == [-1, 0, -1]


def test_class_map_errors_list_what_there_is():
    with pytest.raises(DataError, match=r"no 6-class map of casme2; .* 3, 4, 5, 7"):
        classes.class_map("casme2", 6)
    with pytest.raises(DataError, match=r"Unknown dataset 'casmee'.*Did you mean"):
        classes.class_map("casmee", 5)
    with pytest.raises(DataError, match="Unknown class map variant"):
        classes.class_map("casme2", 5, variant="fdp")
    with pytest.raises(DataError, match=r"Unknown emotion 'joy'.*happiness"):
        classes.class_map("casme2", 5).label("joy")
    with pytest.raises(DataError, match="Expected an emotion word, found nan"):
        classes.class_map("casme2", 5).label(float("nan"))
    table = make_table()
    table.loc[2, "emotion"] = "joy"
    with pytest.raises(DataError, match="Clip synthetic/4/4_000 of synthetic: Unknown emotion"):
        classes.label_clips(table, 5)
    with pytest.raises(DataError, match=r"other classes when there are 5.*protocol\.classes=3"):
        classes.label_clips(make_table(datasets=("casme2", "samm")), 5)
    with pytest.raises(DataError, match="no rows"):
        classes.label_clips(table.iloc[:0], 5)
