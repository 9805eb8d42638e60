"""The study of action units refuses to start from nothing."""

import pytest

from mexjax.errors import ConfigError
from mexjax.studies import au


def test_the_study_needs_a_run_or_a_prepared_folder(tmp_path):
    with pytest.raises(ConfigError, match="a finished run or a prepared folder"):
        au.study(out=tmp_path / "study")
    assert not (tmp_path / "study").exists()
