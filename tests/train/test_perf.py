"""How many folds one program takes."""

from __future__ import annotations

import platform
import subprocess
import sys

import jax
import pytest
from small import ROOT

from mexjax.train import cost

GIB = 2**30


def choose(monkeypatch, num_folds=26, num_devices=1, asked=0, free=100 * GIB, strategy="vmap"):
    """The size chosen when a program needs one GiB a fold, and the sizes that were compiled."""
    monkeypatch.setattr(cost, "LARGEST_GROUP", {"cpu": 8})
    monkeypatch.setattr(cost, "needed_bytes", lambda size: size * GIB)
    monkeypatch.setattr(cost, "free_bytes", lambda device: free)
    size = cost.first_group(num_folds, num_devices, asked, strategy=strategy)
    built = []
    while True:
        built.append(size.per_device)
        size = cost.measured(size, size.per_device, num_devices)
        if size.fits:
            return size, built
        size = cost.smaller(size)


def test_groups_are_equal_rather_than_full(monkeypatch):
    size, built = choose(monkeypatch, num_folds=10)
    assert (size.per_device, built) == (5, [5])
    assert choose(monkeypatch, num_folds=26)[0].per_device == 7


def test_a_group_that_does_not_fit_is_halved_until_it_does(monkeypatch):
    size, built = choose(monkeypatch, num_folds=8, free=3 * GIB)
    assert (size.per_device, built) == (2, [8, 4, 2])
    assert "2.00 GiB of 3.0 GiB free" in size.reason


def test_devices_of_a_cpu_share_its_memory(monkeypatch):
    assert choose(monkeypatch, num_folds=8, num_devices=4, free=7 * GIB)[0].per_device == 1


def test_one_fold_is_tried_even_if_it_seems_not_to_fit(monkeypatch):
    assert choose(monkeypatch, num_folds=2, free=0)[0].per_device == 1


def test_what_is_asked_for_is_done(monkeypatch):
    size, _ = choose(monkeypatch, asked=3, free=0)
    assert size.per_device == 3 and "folds.per_chunk=3" in size.reason
    assert choose(monkeypatch, num_folds=4, num_devices=2, asked=9)[0].per_device == 2
    assert choose(monkeypatch, strategy="loop")[0].per_device == 1


def test_compilations_are_counted_while_entered():
    def compile_one(size: int) -> None:
        jax.jit(lambda x: x * 3 + size).lower(jax.ShapeDtypeStruct((size,), "float32")).compile()

    with cost.CompileCounter() as counter:
        compile_one(3)
    compile_one(4)
    assert counter.count == 1 and counter.seconds > 0


@pytest.mark.parametrize("key", ["flops", "temp_bytes", "argument_bytes"])
def test_cost_of_a_program(key):
    shape = jax.ShapeDtypeStruct((64, 64), "float32")
    found = cost.cost(jax.jit(lambda a: a @ a + 1).lower(shape).compile())
    assert found[key] >= 0 and found["flops"] >= 2 * 64**3


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_that_a_program_frees_is_kept_for_the_next_call():
    script = """if True:
        import resource
        import jax
        import jax.numpy as jnp
        from mexjax import runtime

        runtime.use_callers_memory()

        def function(x):  # arrays of 64 MiB between
            y = jnp.tanh(x.reshape(-1, 64))
            return jnp.tanh(jnp.tanh(y @ y[:64]) @ y[64:128]).sum()

        program, x = jax.jit(function), jnp.ones(2**24)
        program(x).block_until_ready()
        assert runtime.settle_memory()
        program(x).block_until_ready()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            program(x).block_until_ready()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # 64 MiB are 16384 small pages; without the setting every call takes them anew.
    assert int(found.stdout) < 2000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_step_finds_its_memory_in_one_place_whatever_settles_between():
    script = """if True:
        import ctypes
        import jax
        from mexjax import runtime

        libc, size = ctypes.CDLL(None), 300 * 2**20
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        assert not runtime.make_room(size)  # no setting was made: nothing is done
        runtime.use_callers_memory()
        assert jax.default_backend() == "cpu" and runtime.settle_memory()
        # What compiling and starting leave free below what stays.
        gaps = [(libc.malloc(n * 2**20), libc.malloc(n * 2**20)) for n in (10, 100, 200)]
        for gap, _ in gaps:
            libc.free(gap)
        assert runtime.make_room(size) and not runtime.make_room(0)
        places = []
        for _ in range(4):
            places.append(libc.malloc(size))
            kept = [libc.malloc(n) for n in (24, 1000, 10**5, 2 * 10**6)]
            libc.free(places[-1])
            kept += [libc.malloc(n) for n in (24, 1000, 10**5, 2 * 10**6)]
            assert runtime.make_room(size)
        print(max(places) - min(places))
    """
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 2**20  # without the room: 300 MiB
