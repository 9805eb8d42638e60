"""The fold axis: the same numbers under every strategy, and nothing hidden in the programs."""

from __future__ import annotations

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import needs_devices
from small import BLOCKS, small_config

from mexjax import target
from mexjax.errors import ConfigError
from mexjax.protocol.splits import Fold
from mexjax.train import cost, fold_axis, plan
from mexjax.train.programs import Compiled, compile_programs
from mexjax.train.step import FoldPlan
from mexjax.train.study import Study, make_study

UNEQUAL = (27, 9, 18)
# A bias starts at zero: its scale is that of the weights it is added to. Where rounding moves one
# activation across a ReLU's corner, a bias of 1e-6 changes by a tenth of itself.
WEIGHTS = 0.05
# Adam takes smaller steps here: with steps of 1e-3 rounding grows beyond 1e-4 of a loss within
# twenty of them.
RATE = 3e-4
SGD = ("sgd", 0.02)


@functools.cache
def unequal_study(strategy: str, optimizer: str, rate: float) -> Study:
    """Three folds of 27, 9 and 18 training clips: 4, 2 and 3 steps an epoch."""
    config = small_config(
        folds__strategy=strategy,
        **BLOCKS,
        train__optimizer=optimizer,
        train__learning_rate=rate,
        train__schedule="constant",
        train__num_epochs=7,
        train__weight_decay=1e-3,
        # Adam divides by the size of a gradient. Where that is rounding noise, as of a bias before
        # a norm, the step is noise of full size; a larger epsilon keeps those still.
        **({"train__epsilon": 1e-6} if optimizer != "sgd" else {}),
    )
    study = make_study(config)
    rows = np.arange(len(study.dataset.table))
    none = np.array([], int)
    folds = [
        Fold(f"f{i}", np.roll(rows, 5 * i)[:n], none, np.roll(rows, 5 * i)[n : n + 4])
        for i, n in enumerate(UNEQUAL)
    ]
    ids = list(range(len(folds)))
    layout = plan.plan_batches(folds, ids, study.dataset.clips, config)
    schedule = dataclasses.replace(
        study.schedule, num_epochs=7, epoch_steps=plan.steps_per_epoch(folds, config)
    )
    return dataclasses.replace(
        study, config=config, all_folds=folds, fold_ids=ids, plan=layout, schedule=schedule
    )


@functools.cache
def compiled_group(
    strategy: str, per_device: int, optimizer: str, rate: float
) -> tuple[Study, Compiled]:
    """The unequal folds, and the programs of a group of them."""
    study = unequal_study(strategy, optimizer, rate)
    return study, compile_programs(study, study.dataset.on_host(), per_device=per_device)


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_kept():
    yield
    for cached in (unequal_study, compiled_group, trained):
        cached.cache_clear()


@functools.cache
def trained(
    strategy: str, per_device: int, steps: int, optimizer: str = SGD[0], rate: float = SGD[1]
) -> tuple[list, np.ndarray]:
    """Parameters of each fold and losses f32[F, steps] after `steps` steps."""
    study, compiled = compiled_group(strategy, per_device, optimizer, rate)
    programs = compiled.programs
    data = jax.device_put(study.dataset.on_host(), programs.shared)
    width = per_device * study.num_devices
    params, losses = [], []
    place = programs.log_names.index("loss")
    for start in range(0, len(study.folds), width):
        own = plan.take_folds(study.plan, slice(start, start + width))
        folds = jax.device_put(plan.pad_folds(own, width), programs.folded)
        carry = compiled.init(folds, data)
        seen = []
        for step in range(steps):
            carry = compiled.train(carry, folds, data)
            seen.append(jax.device_get(carry.logs)[:, step % study.schedule.epoch_steps, place])
        states = jax.device_get(carry.states)
        for row in range(own.fold_id.shape[0]):
            params.append(jax.tree.map(lambda x, row=row: x[row], states))
            losses.append([values[row] for values in seen])
    return params, np.array(losses)


GROUPINGS = [
    pytest.param("vmap", 1, marks=pytest.mark.slow),
    pytest.param("vmap", 2, marks=pytest.mark.slow),
    ("vmap", 3),
    # Of four devices, so one place in the group is empty.
    pytest.param("shard", 1, marks=needs_devices(4)),
]


def leaves(tree):
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in pairs}


@pytest.mark.parametrize(("strategy", "per_device"), GROUPINGS)
def test_parameters_after_five_sgd_steps_agree(strategy, per_device):
    alone, _ = trained("loop", 1, 5)
    grouped, _ = trained(strategy, per_device, 5)
    assert len(alone) == len(grouped) == 3
    for one, other in zip(alone, grouped, strict=True):
        expected, found = leaves(one), leaves(other)
        for name, value in expected.items():
            if name.startswith(".opt_state"):  # moments of what has no gradient are noise
                continue
            scale = max(np.abs(value).max(), WEIGHTS)
            np.testing.assert_allclose(found[name], value, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize(
    ("strategy", "per_device"), [("vmap", 3), pytest.param("shard", 1, marks=pytest.mark.slow)]
)
def test_losses_of_twenty_adam_steps_agree(strategy, per_device):
    _, alone = trained("loop", 1, 20, "adam", RATE)
    _, grouped = trained(strategy, per_device, 20, "adam", RATE)
    study = unequal_study("loop", "adam", RATE)
    valid = study.plan.valid[:, :20]
    assert valid.sum(axis=1).tolist() == [20, 10, 15]
    np.testing.assert_allclose(grouped[valid], alone[valid], rtol=1e-4)
    # What a fold sits out is not logged as training.
    assert np.isnan(grouped[~valid]).all()


def test_bfloat16_trains_beside_float32():
    """Half precision in the network alone: parameters, moments and statistics stay float32."""
    losses = {}
    for precision in ("tf32", "bfloat16"):
        config = small_config(precision=precision, folds__strategy="loop", train__num_epochs=3)
        study = make_study(config)
        host = study.dataset.on_host()
        compiled = compile_programs(study, host, per_device=1)
        assert ("bf16" in compiled.train.as_text()) == (precision == "bfloat16")
        own = jax.device_put(plan.take_folds(study.plan, slice(0, 1)))
        data = jax.device_put(host)
        carry = compiled.init(own, data)
        seen = []
        for step in range(8):
            carry = compiled.train(carry, own, data)
            row = jax.device_get(carry.logs)[0, step % study.schedule.epoch_steps]
            seen.append(row[compiled.programs.log_names.index("loss")])
        state = jax.device_get(carry.states)
        floats = {x.dtype for x in jax.tree.leaves(state) if np.issubdtype(x.dtype, np.floating)}
        assert floats == {np.dtype(np.float32)}
        losses[precision] = np.array(seen)
    assert not np.array_equal(losses["bfloat16"], losses["tf32"])
    np.testing.assert_allclose(losses["bfloat16"][0], losses["tf32"][0], rtol=2e-2)
    np.testing.assert_allclose(losses["bfloat16"], losses["tf32"], rtol=0.15)


def test_steps_that_are_not_the_folds_own_change_nothing():
    study = unequal_study("vmap", *SGD)
    after_two, _ = trained("vmap", 3, 2)
    after_four, _ = trained("vmap", 3, 4)
    # Fold 1 has two steps an epoch of four.
    assert study.plan.valid[1, :4].tolist() == [True, True, False, False]
    before, after = leaves(after_two[1]), leaves(after_four[1])
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert not np.array_equal(
        leaves(after_two[0])[".params['mer_fc2']['bias']"],
        leaves(after_four[0])[".params['mer_fc2']['bias']"],
    )


@pytest.mark.slow
def test_a_short_fold_is_the_same_without_the_longer_ones():
    """Two epochs of fold 1 in a plan of its own: other places in the plan, the same training."""
    study = unequal_study("loop", *SGD)
    fold = study.folds[1]
    layout = plan.plan_batches([fold], [1], study.dataset.clips, study.config)
    schedule = dataclasses.replace(study.schedule, epoch_steps=2)
    own = dataclasses.replace(study, all_folds=[fold], fold_ids=[0], plan=layout, schedule=schedule)
    host = study.dataset.on_host()
    compiled = compile_programs(own, host, per_device=1)
    data = jax.device_put(host, compiled.programs.shared)
    folds = jax.device_put(layout, compiled.programs.folded)
    carry = compiled.init(folds, data)
    for _ in range(4):
        carry = compiled.train(carry, folds, data)
    alone = leaves(jax.tree.map(lambda x: x[0], jax.device_get(carry.states.params)))
    among, _ = trained("vmap", 3, 8)
    for name, value in leaves(among[1].params).items():
        scale = max(np.abs(value).max(), WEIGHTS)
        np.testing.assert_allclose(alone[name], value, atol=1e-5 * scale, err_msg=name)


def test_folds_differ_from_each_other():
    states, _ = trained("vmap", 3, 5)
    norms = [leaves(s)[".batch_stats['frame_network']['norm']['mean']"] for s in states]
    assert not np.allclose(norms[0], norms[1]) and not np.allclose(norms[1], norms[2])


def compiled_text(strategy: str, per_device: int) -> str:
    return compiled_group(strategy, per_device, *SGD)[1].train.as_text()


def computations(text: str) -> dict[str, str]:
    """The computations of a module in HLO text by name."""
    found = {}
    for block in re.split(r"\n(?=%|ENTRY )", text):
        name = re.match(r"(?:ENTRY )?%?([\w.\-]+)", block)
        if name:
            found[name.group(1)] = block
    return found


def inside_loops(text: str) -> str:
    """The text of every computation that a loop runs, directly or through others."""
    blocks = computations(text)
    called = r"(?:body|condition|calls|to_apply|branch_computations)=\{?%?([\w.\-]+)"
    waiting = [
        name
        for block in blocks.values()
        for line in block.splitlines()
        if " while(" in line
        for name in re.findall(called, line)
    ]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in blocks and name not in seen:
            seen.add(name)
            waiting += re.findall(called, blocks[name])
    return "\n".join(blocks[name] for name in seen)


@pytest.mark.parametrize("per_device", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_no_convolution_inside_a_loop_on_the_cpu(per_device):
    text = compiled_text("vmap", per_device)
    assert " dot(" in text or " convolution(" in text
    assert " convolution(" not in inside_loops(text)
    # What vmap would have made of the convolutions without their own batching rule.
    assert not re.search(r"(feature|batch)_group_count=(?!1\b)\d", text)


def test_the_loop_reader_finds_a_convolution_in_a_loop():
    def body(x, _):
        return jax.lax.conv(x, jax.numpy.ones((4, 4, 3, 3)), (1, 1), "SAME"), None

    image = jax.numpy.ones((1, 4, 8, 8))
    text = jax.jit(lambda x: jax.lax.scan(body, x, length=50)).lower(image).compile().as_text()
    assert "convolution" in inside_loops(text)


COLLECTIVES = r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"


@needs_devices(4)
def test_sharded_step_has_no_collective():
    text = compiled_text("shard", 1)
    assert "num_partitions=4" in text
    assert re.findall(COLLECTIVES, text) == []


@pytest.mark.slow
def test_one_compilation_for_a_shape():
    study, compiled = compiled_group("vmap", 2, *SGD)
    programs = compiled.programs
    data = jax.device_put(study.dataset.on_host(), programs.shared)
    with cost.CompileCounter() as counter:
        for start in (0, 2):
            own = plan.take_folds(study.plan, slice(start, start + 2))
            folds = jax.device_put(plan.pad_folds(own, 2), programs.folded)
            carry = compiled.init(folds, data)
            for _ in range(3):
                carry = compiled.train(carry, folds, data)
            jax.block_until_ready(carry)
    assert counter.count == 0


def test_steps_per_call_must_divide_an_epoch():
    config = small_config(train__steps_per_call=3)
    study = make_study(config)
    assert study.schedule.epoch_steps % 3
    with pytest.raises(ConfigError, match=r"steps_per_call=3 must divide the \d+ steps"):
        compile_programs(study, study.dataset.on_host(), per_device=1)


def test_unknown_strategy_lists_the_known():
    with pytest.raises(ConfigError, match=r"'vmpa'.*Did you mean 'vmap'.*loop, shard, vmap"):
        fold_axis.strategy_for("vmpa", target.current())


def counting_call(strategy: str, valid: np.ndarray, skips_idle: bool) -> tuple[list, np.ndarray]:
    """Steps that each fold was taken through in one call of five, and the logged positions."""
    count = len(valid)
    layout = FoldPlan(
        **{field.name: np.zeros(count, np.int32) for field in dataclasses.fields(FoldPlan)}
        | {"valid": valid, "extras": {}}
    )
    functions = types.SimpleNamespace(
        init=lambda plan, data: jnp.zeros((), jnp.int32) * plan.seed,
        train=lambda state, position, plan, data: (state + 1, {"loss": position + data["x"]}),
        evaluate=lambda state, batch, plan, data: {"logits": state},
    )
    data = {"x": np.zeros((), np.float32)}
    programs = fold_axis.make_programs(
        functions,
        strategy,
        target.current(),
        example=(layout, data),
        epoch_steps=5,
        steps_per_call=5,
        skips_idle=skips_idle,
    )
    carry = programs.init(layout, data)
    carry = dataclasses.replace(carry, position=carry.position + 5)  # the second epoch
    text = programs.train.lower(carry, layout, data).compile().as_text()
    assert not re.search(r"all-(reduce|gather|to-all)|collective", text)
    carry = jax.device_get(programs.train(carry, layout, data))
    assert carry.position == 10
    return carry.states.tolist(), carry.logs[..., 0]


def test_steps_that_no_fold_has_are_not_run():
    valid = np.zeros((4, 10), bool)
    valid[:, :5] = True  # what the first epoch has does not matter
    valid[0, 5:8] = valid[1, 6] = True
    assert counting_call("vmap", valid, False)[0] == [5] * 4
    steps, logs = counting_call("vmap", valid, True)
    assert steps == [3] * 4
    np.testing.assert_array_equal(logs, np.tile([5.0, 6, 7, np.nan, np.nan], (4, 1)))


@needs_devices(4)
def test_each_device_ends_with_the_last_step_that_its_folds_have():
    valid = np.zeros((4, 10), bool)
    valid[0, 5:8] = valid[1, 6] = True
    assert counting_call("shard", valid, True)[0] == [3, 2, 0, 0]
    assert counting_call("shard", valid, False)[0] == [5] * 4
