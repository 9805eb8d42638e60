"""The training programs, compiled for an H200 that is not there."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from typing import Any

import gpu_programs
import pytest
import results_files
from gpu_programs import Case

pytestmark = [
    pytest.mark.gpu_program,
    pytest.mark.skipif(
        not any(d.name == "jax-cuda12-plugin" for d in importlib.metadata.distributions()),
        reason="the extra gpu-programs is not installed",
    ),
]
TINY = ("fdp_tiny", "tsfmicro_tiny", "gamdss_tiny", "ac4au_tiny", "micro_au_clip_tiny")
PUBLISHED = ("micro_au_clip_paper", "ac4au_scratch")
CASES = [Case(card, devices=devices) for card in (*TINY, *PUBLISHED) for devices in (1, 8)]
BFLOAT16 = [Case("tsfmicro_tiny", dtype="bfloat16"), Case("ac4au_scratch", dtype="bfloat16")]


@functools.cache
def compiled(case: Case) -> dict[str, Any]:
    figures = gpu_programs.in_new_process(case, "h200")
    assert "error" not in figures, figures
    return figures


def committed() -> dict[str, Any]:
    files = [r for r in results_files.read_results() if r.kind == "gpu_programs"]
    return files[-1].record["programs"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_step_stays_on_its_device(case):
    figures = compiled(case)
    assert figures["collectives"] == [] and figures["callbacks"] == []
    assert figures["float64_arrays"] == 0
    assert figures["inner_convolutions"] == 0 and figures["inner_loops"] == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_input_gradients_are_those_of_cudnn(case):
    assert compiled(case)["padded_gradients"] == 0


@pytest.mark.parametrize("case", BFLOAT16, ids=lambda case: case.name)
def test_products_are_bfloat16_where_it_is_asked(case):
    """Losses and a few products with float32 statistics stay float32."""
    dtypes = compiled(case)["dtypes"]
    assert dtypes["bf16"] >= 0.9 * sum(dtypes.values()), json.dumps(dtypes)


@pytest.mark.parametrize("case", CASES + BFLOAT16, ids=lambda case: case.name)
def test_kernels_and_bytes_are_those_of_the_committed_table(case):
    figures, table = compiled(case), committed()
    assert case.name in table, f"{case.name} is not in the newest results of gpu_programs.py"
    for key in ("kernels", "gbytes"):
        assert figures[key] == pytest.approx(table[case.name][key], rel=0.05), (
            f"{key} of {case.name}: if the change is meant, commit a new table with the command"
            " of benchmarks/gpu_programs.py"
        )
