"""How many folds one program takes."""

from __future__ import annotations

import jax
import pytest

from mexjax.train import cost

GIB = 2**30


def choose(monkeypatch, num_folds=26, num_devices=1, asked=0, free=100 * GIB, strategy="vmap"):
    """The size chosen when a program needs one GiB a fold, and the sizes that were compiled."""
    monkeypatch.setattr(cost, "LARGEST_GROUP", {"cpu": 8})
    monkeypatch.setattr(cost, "needed_bytes", lambda size: size * GIB)
    monkeypatch.setattr(cost, "free_bytes", lambda device: free)
    devices = jax.local_devices()[:1] * num_devices
    size = cost.first_group(num_folds, devices, asked, strategy=strategy)
    built = []
    while True:
        built.append(size.per_device)
        size = cost.measured(size, size.per_device, devices)
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
    assert counter.count == 1 and counter.num_before_training == 0


@pytest.mark.parametrize("key", ["flops", "temp_bytes", "argument_bytes"])
def test_cost_of_a_program(key):
    shape = jax.ShapeDtypeStruct((64, 64), "float32")
    found = cost.cost(jax.jit(lambda a: a @ a + 1).lower(shape).compile())
    assert found[key] >= 0 and found["flops"] >= 2 * 64**3
