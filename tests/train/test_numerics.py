"""Precision, determinism and CUDA graphs: what is asked reaches the programs, or is refused."""

from __future__ import annotations

import json
import re
import shutil
import types

import jax
import numpy as np
import pytest
from small import small_config

import mexjax
from mexjax import files
from mexjax.config import flat
from mexjax.errors import ConfigError, WorkdirError
from mexjax.models import get_model
from mexjax.models.ac4au.frequency import frd
from mexjax.models.fdp.options import PRESETS as FDP
from mexjax.models.spatio_temporal.place import resize_map
from mexjax.report.agreement import config_digest
from mexjax.report.compare import compare
from mexjax.target import Target, current
from mexjax.train import augment, numerics, programs
from mexjax.train.study import make_study

GPU = Target((types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H200"),))
SHORT = {"folds__only": ("synthetic/01", "synthetic/02"), "train__num_epochs": 1}
# A product or a convolution in StableHLO, with its precision and the types of its factors.
PRODUCT = re.compile(r"= stablehlo\.(?:dot_general|convolution).* : \((.*?), (.*?)\) ->")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return mexjax.run(small_config(**SHORT), tmp_path_factory.mktemp("finished") / "run")


def products(precision: str) -> list[str]:
    """The lines of the lowered training step that multiply float32 numbers."""
    study = make_study(small_config(precision=precision))
    text = programs.trace_step(study, study.dataset.on_host()).lower().as_text()
    return [match[0] for match in PRODUCT.finditer(text) if "bf16" not in match[1]]


def test_highest_reaches_every_product():
    rounded, exact = products("tf32"), products("highest")
    assert len(exact) == len(rounded) > 20
    assert all("HIGHEST" in line for line in exact)
    assert sum("HIGHEST" in line for line in rounded) < len(rounded) / 2


def jitter(clips):
    kinds = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}
    named = {f"augment__{name}": amount for name, amount in kinds.items()}
    return augment.augment(
        clips, jax.random.key(0), small_config(data__is_color=True, **named).augment
    )


def dynamic_image(clips):
    return get_model("fdp").targets(clips, FDP["official"])


CLIPS = (2, 8, 30, 30, 3)
# Each case: a function, the shape of its argument, and how many products it has at least.
PIXELS = {
    "colour jitter": (jitter, CLIPS, 4),
    "smaller images": (lambda x: resize_map(x, 12, "bilinear_antialias"), CLIPS[1:], 1),
    "dynamic image": (dynamic_image, CLIPS, 1),
    "bands of frequency": (lambda x: frd(x, bands=(1, 3)), (2, 8, 5), 1),
}


@pytest.mark.parametrize("case", PIXELS)
def test_products_of_pixels_and_frequencies_are_not_rounded(case):
    """On a GPU, products of float32 numbers keep 10 bits, unless the program says otherwise."""
    function, shape, least = PIXELS[case]
    lowered = jax.jit(function).lower(jax.ShapeDtypeStruct(shape, np.float32)).as_text()
    lines = [match[0] for match in PRODUCT.finditer(lowered)]
    assert len(lines) >= least and all("HIGHEST" in line for line in lines)


def test_the_choices_become_options_of_xla():
    def options(target=GPU, **changes):
        return numerics.compile_options(small_config(**changes), target)

    assert options() == {}
    assert set(options(deterministic=True)) == {
        "xla_gpu_exclude_nondeterministic_ops",
        "xla_gpu_deterministic_ops",
    }
    assert "CONVOLUTION" in options(gpu__graphs="convolutions")["xla_gpu_enable_command_buffer"]
    both = options(gpu__graphs="epoch", deterministic=True)
    assert "WHILE" in both["xla_gpu_enable_command_buffer"] and len(both) == 4
    assert options(current(), gpu__graphs="epoch", deterministic=True) == {}


def test_all_programs_are_compiled_with_the_options(monkeypatch):
    options = {"xla_gpu_deterministic_ops": True}
    monkeypatch.setattr(numerics, "compile_options", lambda *_: options)
    compile_, calls = jax.stages.Lowered.compile, []

    def compiled(self, compiler_options=None):
        calls.append(compiler_options)
        return compile_(self, compiler_options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)
    study = make_study(small_config())
    programs.compile_programs(study, programs.device_data(study), per_device=1)
    assert calls == [options] * 3


@pytest.mark.parametrize("graphs", ["convolutions", "epoch"])
def test_graphs_are_refused_where_there_is_no_gpu(graphs, tmp_path):
    with pytest.raises(ConfigError, match=f"gpu.graphs={graphs} has no effect on"):
        mexjax.run(small_config(gpu__graphs=graphs), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    numerics.check_numerics(small_config(gpu__graphs=graphs), GPU)


def test_a_setting_of_jax_that_counts_instead_is_named(caplog):
    numerics.check_numerics(small_config(), GPU)
    with jax.default_matmul_precision("highest"):
        numerics.check_numerics(small_config(), current())
        numerics.check_numerics(small_config(precision="highest"), GPU)
        assert not caplog.records
        numerics.check_numerics(small_config(), GPU)
    assert "jax_default_matmul_precision=highest counts instead of precision" in caplog.text


def test_a_cpu_keeps_both_promises_anyway(finished, tmp_path):
    config = small_config(**SHORT, precision="highest", deterministic=True)
    again = mexjax.run(config, tmp_path / "run")
    name = "predictions.csv"
    assert (again.workdir / name).read_bytes() == (finished.workdir / name).read_bytes()


def test_the_key_of_old_is_named_with_the_one_of_today(tmp_path):
    words = r"The key dtype is now precision, which is one of tf32, highest, bfloat16"
    for overrides in (["dtype=bfloat16"], {"dtype": "float32"}):
        with pytest.raises(ConfigError, match=words):
            mexjax.load_config("fdp", overrides)
    card = tmp_path / "mine.py"
    card.write_text(
        "import mexjax\n\ndef get_config(variant=''):\n"
        "    config = mexjax.load_config('fdp').unlock()\n"
        "    config.dtype = 'bfloat16'\n    return config\n"
    )
    with pytest.raises(ConfigError, match=words):
        mexjax.load_config(card)


def make_older(folder, dtype="float32"):
    """Write the configuration of a run, and its digests, as versions without the keys did."""
    config = json.loads((folder / "config.json").read_text())
    for name in ("precision", "deterministic", "gpu", "sweep"):
        del config[name]
    config["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    indifferent = ("has_progress", "cpu_heap", "checkpoint.", "report.", "data.root", "data.cache")
    indifferent += ("protocol.class_map",)
    values = {k: v for k, v in flat(config).items() if not k.startswith(indifferent)}
    mark = files.digest(files.canonical(values))
    for name in ("run.json", "groups/size.json"):
        content = files.read_sealed(folder / name)
        assert content is not None
        content.pop(files.SEAL, None)
        if name == "run.json":
            content["digests"]["config.json"] = mark
        else:
            content["config"] = mark
        (folder / name).write_text(json.dumps(files.sealed(content)))
    return mark


def test_a_run_without_the_keys_goes_on_and_reports(finished, tmp_path, caplog):
    folder = tmp_path / "older"
    shutil.copytree(finished.workdir, folder)
    mark = make_older(folder)
    assert mark == config_digest(small_config(**SHORT).to_dict())
    mexjax.write_report(folder)
    assert len(compare([folder, finished.workdir])["groups"]) == 1
    assert mexjax.run(small_config(**SHORT), folder).was_finished
    assert json.loads((folder / "config.json").read_text())["precision"] == "tf32"
    # The same with a fold left to train, whatever graphs are asked for.
    make_older(folder)
    for name in ("run.json", "predictions.npz", "predictions.csv", "groups/group_000.npz"):
        (folder / name).unlink()
    make_config = small_config(**SHORT)
    assert not mexjax.run(make_config, folder).was_finished
    name = "predictions.csv"
    assert (folder / name).read_bytes() == (finished.workdir / name).read_bytes()
    assert not [record for record in caplog.records if "damaged" in record.message]


@pytest.mark.parametrize(
    ("dtype", "changes", "words"),
    [
        ("float32", {"precision": "highest"}, "precision is 'tf32' there and 'highest' now"),
        ("float32", {"deterministic": True}, "deterministic is False there and True now"),
        ("bfloat16", {}, "precision is 'bfloat16' there and 'tf32' now"),
    ],
)
def test_an_older_run_of_other_numbers_is_refused(dtype, changes, words, finished, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(finished.workdir, folder)
    make_older(folder, dtype)
    with pytest.raises(WorkdirError, match=words):
        mexjax.run(small_config(**SHORT, **changes), folder)


def test_graphs_may_differ_when_a_run_goes_on():
    marks = {
        config_digest(small_config(gpu__graphs=graphs).to_dict()) for graphs in ("default", "epoch")
    }
    assert len(marks) == 1
