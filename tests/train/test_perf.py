"""How many folds one program takes."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mexjax.target import Target
from mexjax.train import cost, flops, group

GIB = 2**30
CPU = types.SimpleNamespace(platform="cpu", device_kind="cpu")


def choose(monkeypatch, num_folds=26, num_devices=1, asked=0, free=100 * GIB, strategy="vmap"):
    """The size chosen when a program needs one GiB a fold, and the sizes that were compiled."""
    monkeypatch.setattr(cost, "LARGEST_GROUP", {"cpu": 8})
    monkeypatch.setattr(cost, "needed_bytes", lambda size: size * GIB)
    monkeypatch.setattr(cost, "free_bytes", lambda device: free)
    devices = [CPU] * num_devices
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
    assert size.reason == (
        "2 of 8 folds per cpu device: no more than 8 pays; 4 do not fit;"
        " the step needs 2.00 GiB of 3.0 GiB free"
    )


def test_devices_of_a_cpu_share_its_memory(monkeypatch):
    assert choose(monkeypatch, num_folds=8, num_devices=4, free=7 * GIB)[0].per_device == 1


def test_one_fold_is_tried_even_if_it_seems_not_to_fit(monkeypatch):
    assert choose(monkeypatch, num_folds=2, free=0)[0].per_device == 1


def test_what_is_asked_for_is_done(monkeypatch):
    size, _ = choose(monkeypatch, asked=3, free=0)
    assert size.per_device == 3 and "folds.per_chunk=3" in size.reason
    assert choose(monkeypatch, num_folds=4, num_devices=2, asked=9)[0].per_device == 2
    assert choose(monkeypatch, strategy="loop")[0].per_device == 1


def test_a_run_that_was_begun_keeps_its_groups():
    size = cost.first_group(10, [CPU], 3, strategy="vmap", begun=2)
    assert size == (2, "the run was begun so", True)


@pytest.mark.parametrize(
    ("num_folds", "num_devices", "per_device", "text"),
    [
        (26, 1, 1, "26 folds, one by one"),
        (1, 1, 1, "1 fold"),
        (26, 1, 7, "26 folds in 4 groups of 7"),
        (5, 1, 5, "5 folds in one group"),
        (26, 8, 2, "26 folds in 2 groups of 16, 2 on each of 8 devices"),
        (32, 8, 4, "32 folds in one group, 4 on each of 8 devices"),
        (26, 8, 4, "26 folds in one group, 4 on each of 8 devices, of which 1 has no fold"),
        (2, 8, 1, "2 folds in one group, 1 on each of 8 devices, of which 6 have no fold"),
        (1, 2, 1, "1 fold in one group, 1 on each of 2 devices, of which 1 has no fold"),
    ],
)
def test_groups_are_told_with_the_reason(num_folds, num_devices, per_device, text):
    size = cost.GroupSize(per_device, "why")
    assert cost.describe_groups(num_folds, num_devices, size) == f"{text} (why)"


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


H200 = Target((types.SimpleNamespace(platform="cuda", device_kind="NVIDIA H200"),))
# Results in 10^9 bytes, operations, and 10^9 operations of products in a forward pass of a training
# batch; parameters in 10^6; folds whose work is as long as the launches.
STEPS = {
    "fdp tiny": (0.127, 404, 0.7, 1.2, 11),
    "tsfmicro tiny": (0.095, 458, 0.2, 0.07, 18),
    "ac4au tiny": (1.09, 662, 1.6, 0.23, 3),
    "micro_au_clip tiny": (0.033, 492, 0.13, 0.16, 53),
    "a large one": (26.0, 900, 470.0, 12.8, 1),
}


def bound_of(name: str) -> cost.StepBound:
    gbytes, operations, gflops, params, _ = STEPS[name]
    work = flops.Work(gflops * 1e9, gbytes * 1e9, operations)
    return cost.step_bound(work, int(params * 1e6), H200, "float32")


@pytest.mark.parametrize("name", STEPS)
def test_a_group_grows_until_its_work_outweighs_its_launches(name):
    bound, worth = bound_of(name), STEPS[name][-1]
    assert bound.folds_worth == worth
    size = cost.first_group(120, H200.devices, 0, strategy="vmap", bound=bound)
    groups = -(-120 // worth)
    assert size.per_device == -(-120 // groups) <= worth
    assert f"no more than {worth} pays" in size.reason and "ms of launches" in size.reason
    assert cost.first_group(120, H200.devices, 5, strategy="vmap", bound=bound).per_device == 5
    assert cost.first_group(2, H200.devices, 0, strategy="vmap", bound=bound).per_device <= 2


def test_idle_steps_are_skipped_where_that_saves_more_than_the_answers_of_the_device_cost():
    valid = np.ones((2, 100), bool)
    small, large = bound_of("micro_au_clip tiny"), bound_of("a large one")
    assert not cost.skipping_pays(valid, 1, large)
    valid[1, 99] = False
    # 200 answers of 20 microseconds: 4 ms. A step of the one takes 1 ms, of the other 16 ms.
    assert cost.skipping_pays(valid, 1, large) and not cost.skipping_pays(valid, 1, small)
    assert not cost.skipping_pays(valid, 2, large)  # the other fold has that step


def test_work_counts_results_and_operations_of_loops():
    def forward(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda y, _: (jnp.sin(y), None), x @ x, length=3)[0]

    work = flops.forward_work(forward, jax.ShapeDtypeStruct((8, 8), "float32"))
    assert work == flops.Work(flops=2 * 8**3, num_bytes=4 * 8 * 8 * 4, num_operations=4)


def test_only_the_last_evaluation_fetches_more_than_logits(monkeypatch):
    trainer = object.__new__(group.GroupTrainer)
    outputs = {"logits": np.ones((1, 2, 3)), "map": np.ones((1, 2))}
    trainer.compiled = types.SimpleNamespace(evaluate=lambda *_: outputs)
    trainer.batches, trainer.names, trainer.plan, trainer.data = [0, 1], ["a"], None, None
    trainer.schedule = types.SimpleNamespace(num_epochs=2, eval_epochs=[1, 2])
    trainer.host_plan = types.SimpleNamespace(valid=np.ones((1, 1), bool))
    trainer.history = types.SimpleNamespace(logits=np.zeros((1, 2, 4, 3)))
    fetched = []
    monkeypatch.setattr(group.jax, "device_get", lambda tree: fetched.append(tree) or tree)
    carry = types.SimpleNamespace(states=None)
    assert trainer._evaluate(1, carry) == {}
    assert [sorted(part) for part in fetched.pop()] == [["logits"]] * 2
    assert trainer._evaluate(2, carry)["map"].shape == (1, 4)
    assert trainer.history.logits.all()
