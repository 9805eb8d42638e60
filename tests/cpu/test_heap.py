"""The heap settings of a training process, each in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from device_helpers import needs_cpu
from small import ROOT

pytestmark = needs_cpu()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_that_a_program_frees_is_kept_for_the_next_call():
    script = """if True:
        import resource
        import jax
        import jax.numpy as jnp
        from mexjax.cpu.heap import heap_for_training, run_in_calling_thread

        run_in_calling_thread()

        def function(x):  # arrays of 64 MiB between
            y = jnp.tanh(x.reshape(-1, 64))
            return jnp.tanh(jnp.tanh(y @ y[:64]) @ y[64:128]).sum()

        program, x = jax.jit(function), jnp.ones(2**24)
        program(x).block_until_ready()
        with heap_for_training() as heap:
            assert heap.keep_freed_memory().is_kept
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
        from mexjax.cpu.heap import heap_for_training, run_in_calling_thread

        libc, size = ctypes.CDLL(None), 300 * 2**20
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        with heap_for_training() as heap:  # not asked for: nothing is done
            kept = heap.keep_freed_memory()
            assert not kept.is_kept and not kept.reserve_hole(size)
        run_in_calling_thread()
        with heap_for_training(is_on=False) as heap:
            kept = heap.keep_freed_memory()
            assert not kept.is_kept and not kept.reserve_hole(size)
        manager = heap_for_training()
        heap = manager.__enter__().keep_freed_memory()
        assert heap.is_kept
        # What compiling and starting leave free below what stays.
        gaps = [(libc.malloc(n * 2**20), libc.malloc(n * 2**20)) for n in (10, 100, 200)]
        for gap, _ in gaps:
            libc.free(gap)
        assert heap.reserve_hole(size) and not heap.reserve_hole(0)
        places = []
        for _ in range(4):
            places.append(libc.malloc(size))
            kept = [libc.malloc(n) for n in (24, 1000, 10**5, 2 * 10**6)]
            libc.free(places[-1])
            kept += [libc.malloc(n) for n in (24, 1000, 10**5, 2 * 10**6)]
            assert heap.reserve_hole(size)
        print(max(places) - min(places))
        manager.__exit__(None, None, None)
    """
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 2**20  # without the hole: 300 MiB
