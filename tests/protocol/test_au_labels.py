"""Label matrices of action units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mexjax.errors import DataError
from mexjax.protocol.au_labels import AU_SETS, label_aus

TABLE = pd.DataFrame(
    {
        "aus": [["4", "7"], [], ["12", "45"], ["1", "2"]],
        "aus_unsure": [[], ["14"], [], ["4"]],
    }
)


def test_the_sets_of_the_papers():
    assert len(AU_SETS["cd6me"]) == 12
    assert set(AU_SETS["micro_au_samm"]) < set(AU_SETS["micro_au_casme2"]) < set(AU_SETS["cd6me"])


def test_columns_follow_the_units_and_no_clip_is_left_out():
    labels = label_aus(TABLE, "micro_au_casme2")
    assert labels.dtype == np.int8
    np.testing.assert_array_equal(
        labels,
        [
            [0, 0, 1, 1, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(label_aus(TABLE, (45, 4))[2], [1, 0])


def test_unsure_units_count_only_when_asked_for():
    sure, all_coded = label_aus(TABLE, "cd6me"), label_aus(TABLE, "cd6me", unsure_is_present=True)
    assert sure.sum() == 5
    assert all_coded.sum() == 7


def test_a_table_without_units_says_so():
    with pytest.raises(DataError, match="no column aus"):
        label_aus(TABLE.drop(columns="aus"), "cd6me")
    with pytest.raises(DataError, match="Did you mean 'cd6me'"):
        label_aus(TABLE, "cdme")
