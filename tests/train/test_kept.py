"""Programs on disk: a second start compiles and traces nothing, and no entry is ever wrong."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pickle
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small import small_config
from jax.experimental.compilation_cache import compilation_cache

import mexjax
from mexjax import machine
from mexjax.files import canonical, digest
from mexjax.train import kept, program_key
from mexjax.train import run as train
from mexjax.train.kept import Shelf
from mexjax.train.program_key import CannotDescribeError, code_digest, described, description
from mexjax.train.programs import device_data
from mexjax.train.study import make_study

ONE_FOLD = {"folds__only": ("synthetic/02",), "folds__strategy": "loop"}


@pytest.fixture(scope="module")
def study():
    return make_study(small_config(**ONE_FOLD))


@pytest.fixture(scope="module")
def data(study):
    return device_data(study)


@pytest.fixture(scope="module")
def shelf_of_a_run(tmp_path_factory):
    """A finished run that kept its programs, and their folder; JAX's own cache is off."""
    folder = tmp_path_factory.mktemp("kept")
    is_on = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        done = mexjax.run(
            small_config(**ONE_FOLD), folder / "run", kept_programs=folder / "programs"
        )
    finally:
        jax.config.update("jax_enable_compilation_cache", is_on)
        compilation_cache.reset_cache()
    return done, folder / "programs"


def costs(done) -> dict:
    return json.loads((done.workdir / "perf.json").read_text())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_second_start_traces_and_compiles_nothing(seed, shelf_of_a_run, tmp_path, monkeypatch):
    done, folder = shelf_of_a_run
    assert not costs(done)["has_kept_programs"]
    assert len(list(folder.glob("*.programs"))) == 1
    config = small_config(**ONE_FOLD, seed=seed)
    fresh = done if seed == 0 else mexjax.run(config, tmp_path / "fresh")
    for name in ("compile_programs", "clip_flops"):
        monkeypatch.setattr(train, name, lambda *_, **__: pytest.fail("traced again"))
    second = mexjax.run(config, tmp_path / "second", kept_programs=folder)
    names = ("predictions.csv", "predictions.npz")
    for name in names:
        assert (second.workdir / name).read_bytes() == (fresh.workdir / name).read_bytes()
    assert costs(second)["has_kept_programs"] and costs(second)["num_compilations"] == 0
    assert costs(second)["num_compilations_while_training"] == 0
    for key in ("forward_flops_per_clip", "train_program", "evaluate_program", "group"):
        assert costs(second)[key] == costs(fresh)[key], key


def test_kept_programs_take_their_state_over(shelf_of_a_run, study, data):
    done = Shelf(shelf_of_a_run[1], study, data).read()
    assert done is not None
    compiled = done.compiled
    folds = jax.tree.map(lambda array: array[:1], study.plan)
    folds, arrays = jax.device_put((folds, data), compiled.programs.shared)
    before = compiled.init(folds, arrays)
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(before.states.params)]
    after = compiled.train(before, folds, arrays)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    same = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(after.states.params)]
    assert same == places


def key_of(study, data) -> str:
    return digest(canonical(description(study, data, 1)))


@pytest.mark.parametrize(
    "changes",
    [
        {"train__learning_rate": 2e-3},
        {"train__batch_size": 5},
        {"train__num_epochs": 3},
        {"model__mer_width": 8},
        {"augment__shift_px": 1},
        {"conv": "native"},
        {"folds__only": ("synthetic/02", "synthetic/03")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_a_program_decides_the_key(changes, study, data):
    other = make_study(small_config(**ONE_FOLD | changes))
    assert key_of(other, device_data(other)) != key_of(study, data)


def test_what_decides_no_program_is_not_in_the_key(study, data):
    other = make_study(
        small_config(**ONE_FOLD, seed=3, has_progress=True, checkpoint__every_epochs=7)
    )
    assert key_of(other, device_data(other)) == key_of(study, data)


def test_shapes_and_types_of_data_are_in_the_key(study, data):
    keys = {key_of(study, data)}
    for clips in (data["clips"][1:], data["clips"].astype(np.float32), data["clips"][..., None]):
        keys.add(key_of(study, data | {"clips": clips}))
    keys.add(key_of(study, data | {"more": data["clips"]}))
    assert len(keys) == 5


def test_the_machine_and_its_settings_are_in_the_key(study, data, monkeypatch):
    keys = [key_of(study, data)]
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} --xla_cpu_enable_fast_math=true")
        keys.append(key_of(study, data))
    with jax.default_matmul_precision("bfloat16"):
        keys.append(key_of(study, data))
    version = importlib.metadata.version
    for name in ("jax", "jaxlib", "flax", "optax"):
        with monkeypatch.context() as patch:
            patch.setattr(
                importlib.metadata, "version", lambda n, name=name: version(n) + "1" * (n == name)
            )
            keys.append(key_of(study, data))
    for module, name, value in (
        (machine, "num_cores", lambda: 77),
        (machine, "processor", lambda: "another"),
        (program_key, "processor_flags", lambda: "avx512f"),
        (program_key, "FORMAT", program_key.FORMAT + 1),
        (program_key, "code_digest", lambda folder: "another"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            keys.append(key_of(study, data))
    assert len(set(keys)) == len(keys)
    assert key_of(study, data) == keys[0]


def test_any_change_of_a_source_file_changes_the_digest(tmp_path):
    source = Path(mexjax.__file__).parent
    folder = tmp_path / "mexjax"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    digests = [code_digest(source)]
    assert code_digest(folder) == digests[0]
    module, table = folder / "nn" / "layers.py", folder / "ops" / "conv" / "table.json"
    for path in (module, table):
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        digests.append(code_digest(folder))
    module.rename(module.with_name("layers_2.py"))
    digests.append(code_digest(folder))
    (folder / "nn" / "more.py").touch()
    digests.append(code_digest(folder))
    assert len(set(digests)) == len(digests)


@dataclasses.dataclass(frozen=True)
class Part:
    values: object
    name: str = ""


def test_values_are_described_apart():
    values = [
        *(None, True, 1, 1.0, "1", 0.1, 0.1 + 2**-56, [1], (1,), {1: 2}, {2: 1}, {"1": 2}),
        *(np.arange(3), np.arange(3.0), np.arange(3)[None], np.array([0, 1, 3]), np.int32(1)),
        *(Part(1), Part(2), Part(1, "b"), Part(Part(1)), jnp.arange(4)),
    ]
    texts = [canonical(described(value)) for value in values]
    assert len(set(texts)) == len(texts)
    large = np.zeros(10_000)
    other = large.copy()
    other[5_000] = 1e-300  # the text of NumPy leaves the middle out
    assert described(Part(large)) != described(Part(other))
    assert described({"a": 1, "b": 2}) == described({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [object(), lambda: 0, np.array([object()]), {1, 2}])
def test_what_cannot_be_described_is_not_kept(value, study, data, tmp_path):
    with pytest.raises(CannotDescribeError):
        described(Part(value))
    other = dataclasses.replace(study, options=Part(value))
    assert Shelf(tmp_path, other, data).path is None


def test_a_paper_from_elsewhere_is_not_kept(study, data, tmp_path):
    own = type("Own", (type(study.paper),), {"__module__": "somewhere"})
    other = dataclasses.replace(study, paper=own())
    assert Shelf(tmp_path, study, data).path is not None
    assert Shelf(tmp_path, other, data).path is None
    assert Shelf(None, study, data).path is None


def flipped(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def sealed(content: bytes) -> bytes:
    return digest(content).encode() + content


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"\xff" * len(content),
        lambda content: sealed(b"no pickle"),
        lambda content: sealed(pickle.dumps({"executables": {}})),
    ],
    ids=["flipped", "cut", "empty", "bytes", "no pickle", "other content"],
)
def test_a_damaged_entry_is_as_if_absent(damage, shelf_of_a_run, study, data, tmp_path):
    folder = tmp_path / "programs"
    shutil.copytree(shelf_of_a_run[1], folder)
    shelf = Shelf(folder, study, data)
    assert shelf.path is not None and shelf.read() is not None
    shelf.path.write_bytes(damage(shelf.path.read_bytes()))
    assert shelf.read() is None


def test_an_entry_that_others_can_write_is_not_read(shelf_of_a_run, study, data, tmp_path):
    folder = tmp_path / "programs"
    shutil.copytree(shelf_of_a_run[1], folder)
    shelf = Shelf(folder, study, data)
    assert shelf.path is not None
    for path in (shelf.path, folder):
        mode = path.stat().st_mode
        path.chmod(mode | 0o020)
        assert shelf.read() is None
        path.chmod(mode)
    assert shelf.read() is not None
    shelf.path.unlink()
    os.mkfifo(shelf.path)
    assert shelf.read() is None


def test_a_program_out_of_the_cache_of_jax_is_not_kept(shelf_of_a_run, study, data, tmp_path):
    """Its copy lacks functions, which shows only when it runs."""
    done = Shelf(shelf_of_a_run[1], study, data).read()
    assert done is not None
    shelf = Shelf(tmp_path, study, data)
    with shelf.watching():
        jax.monitoring.record_event("/jax/compilation_cache/cache_hits")
    assert not shelf.write(done.compiled, done.clip_flops)
    assert not list(tmp_path.iterdir())


def test_entries_are_bounded_and_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 3000)
    folder = tmp_path / "programs"
    names = [folder / f"{i}{kept.SUFFIX}" for i in range(4)]
    for i, path in enumerate(names):
        kept._write(path, b"x" * 900)
        os.utime(path, (i, i))
        if i == 2:
            kept._read(names[0])  # it is the newest now
    assert sorted(folder.iterdir()) == [names[0], names[2], names[3]]
    kept._write(folder / f"large{kept.SUFFIX}", b"x" * 9000)
    assert [path.name for path in folder.iterdir()] == [f"large{kept.SUFFIX}"]


def test_a_folder_that_cannot_be_written_is_no_error(shelf_of_a_run, study, data, tmp_path):
    (tmp_path / "file").touch()
    done = Shelf(shelf_of_a_run[1], study, data).read()
    assert done is not None
    assert not Shelf(tmp_path / "file" / "programs", study, data).write(done.compiled, 0)


def test_the_folder_lies_in_the_cache_of_jax():
    settings = jax.config.values
    is_on, cache = settings["jax_enable_compilation_cache"], settings["jax_compilation_cache_dir"]
    assert machine.programs_folder() == Path(cache) / "programs"
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert machine.programs_folder() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", is_on)
