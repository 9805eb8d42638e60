"""A lowered program compiled for a GPU, which need not be there, and what is in it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from mexjax.gpu import hlo, kernels, thunks
from mexjax.gpu.bounds import Bounds, bounds, step_kernels
from mexjax.gpu.kernels import Contents, Kernel
from mexjax.gpu.targets import Gpu

# Without a device XLA cannot try tilings of matrix products, and its default tiling of Triton's
# products does not suit every shape; cuBLASLt needs none.
_WITHOUT_DEVICE = {"xla_gpu_enable_triton_gemm": False}
# Kinds of launches that XLA puts into CUDA graphs by default.
_IN_GRAPHS = ("FUSION", "CUBLAS", "CUBLASLT", "CUSTOM_CALL", "CUDNN", "DYNAMIC_SLICE_FUSION")
GRAPHS = {
    "default": (),
    "convolutions": (*_IN_GRAPHS, "CONVOLUTION"),
    "epoch": (*_IN_GRAPHS, "CONVOLUTION", "WHILE", "CONDITIONAL"),
}


@dataclasses.dataclass(frozen=True)
class Compilation:
    """One program for one device.

    Attributes:
      bounds: of one step.
      contents: kernels, loops and exchanges of the whole program.
      host_launches: launches of the host for one step; 0 if the whole loop is one CUDA graph.
      graphs: CUDA graphs among them.
      temporary_gb: memory taken and given back at every call, without workspaces of libraries.
      argument_gb: memory of the arguments.
      compile_cpu_s: processor seconds of the compilation.
      text: the optimised HLO.
    """

    bounds: Bounds
    contents: Contents
    host_launches: int
    graphs: int
    temporary_gb: float
    argument_gb: float
    compile_cpu_s: float
    text: str

    def as_json(self) -> dict[str, Any]:
        """The figures of a table of programs."""
        return {
            **self.bounds.as_json(),
            "host_launches": self.host_launches,
            "graphs": self.graphs,
            "temporary_gb": round(self.temporary_gb, 4),
            "argument_gb": round(self.argument_gb, 4),
            "compile_cpu_s": round(self.compile_cpu_s, 1),
            "collectives": self.contents.collectives,
            "callbacks": self.contents.callbacks,
            "float64_arrays": self.contents.num_wide,
            "inner_loops": sum(loop.depth > 0 for loop in self.contents.loops),
            "inner_convolutions": sum(
                loop.num_convolutions for loop in self.contents.loops if loop.depth > 0
            ),
            "padded_gradients": sum(_is_padded_gradient(k) for k in self.contents.kernels),
        }


def _is_padded_gradient(kernel: Kernel) -> bool:
    """True for the gradient of a dense convolution that is computed as a forward convolution."""
    is_forward = kernel.kind == "convolution" and "Forward" in kernel.label
    return is_forward and kernel.groups == 1 and "transpose(" in kernel.source


def graph_options(graphs: str) -> dict[str, Any]:
    """Compile options for CUDA graphs: one of the names in `GRAPHS`."""
    kinds = GRAPHS[graphs]
    options: dict[str, Any] = {"xla_gpu_enable_command_buffer": ",".join(kinds)} if kinds else {}
    if "WHILE" in kinds:
        # By itself XLA makes no graph of less than five launches. A loop over steps often has two
        # beside it; then it would become no graph, nor would anything in it.
        options["xla_gpu_graph_min_graph_size"] = 1
    return options


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compile without JAX's compilation cache in a `with` block.

    A program that is found there is not compiled, so that XLA writes no list of launches; and what
    is compiled for an absent device cannot be read back from there.
    """
    # JAX defines the attributes of its configuration when it runs.
    was_used = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks only once whether there is one
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", was_used)
        compilation_cache.reset_cache()


def compile_for(
    lowered: jax.stages.Lowered,
    gpu: Gpu,
    *,
    num_steps: int = 1,
    options: Mapping[str, Any] | None = None,
    is_exact: bool = False,
) -> Compilation:
    """Compiles a program that was lowered for an absent GPU.

    Args:
      lowered: the program, lowered for a device of `targets.absent`.
      gpu: the same device.
      num_steps: steps of its loop; 1 without a loop.
      options: compile options of XLA, by name.
      is_exact: true if products of float32 numbers are not rounded to TF32.
    """
    with tempfile.TemporaryDirectory(prefix="mexjax_gpu_") as folder, without_cache():
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        start = time.process_time()
        compiled = lowered.compile(compiler_options={**_WITHOUT_DEVICE, **(options or {}), **dump})
        spent = time.process_time() - start
        # XLA writes the list again where it made CUDA graphs out of it.
        lists = sorted(Path(folder).glob("*.thunk_sequence*.txt"), key=lambda p: len(p.name))
        launches = thunks.parse(lists[-1].read_text(encoding="utf-8"))
    text = compiled.as_text() or ""
    contents = kernels.contents(hlo.parse(text))
    host, graphs = thunks.host_launches(launches, has_loop=num_steps > 1)
    memory = compiled.memory_analysis()
    return Compilation(
        bounds=bounds(step_kernels(contents, num_steps), gpu, is_exact=is_exact),
        contents=contents,
        host_launches=host,
        graphs=graphs,
        temporary_gb=memory.temp_size_in_bytes / 1e9 if memory else 0.0,
        argument_gb=memory.argument_size_in_bytes / 1e9 if memory else 0.0,
        compile_cpu_s=spent,
        text=text,
    )
