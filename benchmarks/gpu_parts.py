"""The parts of `gpu.py` that run in this project's process; one JSON line for each result.

python benchmarks/gpu_parts.py environment
python benchmarks/gpu_parts.py parity fdp tsfmicro
python benchmarks/gpu_parts.py convolutions "FDP tiny" --dtypes float32 bfloat16
"""

from __future__ import annotations

import argparse
import json
import time
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mexjax import load_config, machine
from mexjax import target as targets
from mexjax.target import Target
from mexjax.train import plan
from mexjax.train.optim import make_optimizer
from mexjax.train.programs import device_data
from mexjax.train.step import FoldFunctions
from mexjax.train.study import make_study

# Lowerings that can win on a GPU. The others were written for a CPU, and to compile all of them
# would leave time for one layer.
GPU_LOWERINGS = ("patchify", "dense_map", "depthwise", "native", "im2col", "split", "merge64")


def say(**figures: Any) -> None:
    """Prints one line at once: the process may be stopped after it."""
    print(json.dumps(figures), flush=True)


def environment() -> None:
    """Prints versions and devices, and the memory of the first device."""
    device = jax.local_devices()[0]
    say(environment=machine.environment(), memory=device.memory_stats())


def evaluate_and_differentiate(config: Any, state: Any, data: Any, fold: Any) -> Any:
    """Predictions of the first evaluation batch, and loss and gradients of the first step.

    They are computed in the forms of the current target and where the arguments lie.
    """
    study = make_study(config)
    functions = _functions(study, config)

    def compute(state: Any, fold: Any, data: Any) -> Any:
        outputs = functions.evaluate(state, jnp.int32(0), fold, data)
        key = jax.random.key(1, impl="threefry2x32")
        batch = functions._training_batch(data, fold.idx[0], key, fold)
        batch |= {"weight": fold.weight[0], **fold.extras}
        if functions.paper.freezes_norms(functions.options):
            batch["is_frozen"] = jnp.bool_(False)
        gradient = jax.value_and_grad(functions._loss, has_aux=True)
        (loss, _), gradients = gradient(state.params, state.batch_stats, batch, key, data)
        return {"logits": outputs["logits"], "loss": loss, "gradients": gradients}

    with jax.default_matmul_precision("highest"):
        return jax.device_get(jax.jit(compute)(state, fold, data))


def _functions(study: Any, config: Any) -> FoldFunctions:
    return FoldFunctions(
        config=config,
        paper=study.paper,
        options=study.options,
        module=study.module,
        optimizer=make_optimizer(config.train),
        has_invalid_steps=False,
    )


def largest_value(tree: Any) -> float:
    """The largest absolute value in a tree of arrays."""
    return float(np.max([np.max(np.abs(x), initial=0.0) for x in jax.tree.leaves(tree)]))


def largest_difference(a: Any, b: Any) -> float:
    """The largest difference of two trees, as a share of the largest value of `b`'s tree."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    differences = [float(np.max(np.abs(x - y), initial=0.0)) for x, y in pairs]
    # NaN must not hide behind a comparison.
    return float(np.max(differences)) / max(largest_value(b), 1e-30)


def gpu_target() -> Target:
    """The device of this process, or on a CPU its stand-in with which GPU forms are traced."""
    if jax.default_backend() != "cpu":
        return Target(tuple(jax.local_devices()))
    return Target((SimpleNamespace(platform="gpu", device_kind="GPU forms on the CPU"),))


def parity(cards: list[str], tolerance: float) -> None:
    """Prints how far each card's smallest network is from the CPU's, with `highest` products."""
    cpu, target = jax.devices("cpu")[0], gpu_target()
    for card in cards:
        start = time.perf_counter()
        overrides = ["has_progress=False", "folds.strategy=loop", "train.batch_size=8"]
        config = load_config(f"{card}:tiny", overrides)
        config.eval.batch_size = config.train.batch_size
        with targets.use(Target((cpu,))), jax.default_device(cpu):
            study = make_study(config)
            data = jax.device_get(device_data(study))
            first = jax.tree.map(lambda x: x[0], plan.take_folds(study.plan, slice(0, 1)))
            state = jax.jit(_functions(study, config).init)(first, data)
            state = jax.device_get(state)
            reference = evaluate_and_differentiate(config, state, data, first)
        with targets.use(target):
            values = evaluate_and_differentiate(config, state, data, first)
        differences = {name: largest_difference(values[name], reference[name]) for name in values}
        say(
            card=card,
            target=target.kind,
            differences=differences,
            # A difference of numbers that are all zero would say nothing.
            largest={name: largest_value(reference[name]) for name in reference},
            is_equal=all(value <= tolerance for value in differences.values()),
            tolerance=tolerance,
            seconds=round(time.perf_counter() - start, 1),
        )


def convolutions(network: str, dtypes: list[str], *, has_one_layer: bool) -> None:
    """Prints a line for each layer of a network and type, the costly layers first.

    Args:
      network: a name in `convolutions.STUDIES`.
      dtypes: types of the arrays.
      has_one_layer: true if the cheapest layer is enough.
    """
    import convolutions as benchmark

    card, overrides = benchmark.STUDIES[network]
    layers = benchmark.layers_of_study(card, overrides)
    layers = sorted(layers, key=lambda layer: -layer.flops)
    layers = layers[-1:] if has_one_layer else layers
    for layer in layers:
        for dtype in dtypes:
            typed = benchmark.with_dtype(layer, dtype)
            try:
                say(network=network, **benchmark.measure_on_device(typed, GPU_LOWERINGS))
            except Exception as error:
                # One lowering may need too much memory; the other layers are still of use.
                text = f"{type(error).__name__}: {error}"[:300]
                say(network=network, layer=benchmark.describe(typed), dtype=dtype, error=text)


def main() -> None:
    """Runs the part of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=("environment", "parity", "convolutions"))
    parser.add_argument("names", nargs="*", help="cards, or a network of convolutions.py")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--one-layer", action="store_true", help="the cheapest layer alone")
    arguments = parser.parse_args()
    if arguments.part == "environment":
        environment()
    elif arguments.part == "parity":
        parity(arguments.names, arguments.tolerance)
    else:
        for network in arguments.names:
            convolutions(network, arguments.dtypes, has_one_layer=arguments.one_layer)


if __name__ == "__main__":
    main()
