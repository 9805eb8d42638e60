"""GPUs that programs can be compiled for where there is none, and what they can do.

A topology of absent devices is made from a description of the device, XLA's
`GpuTargetConfigProto`. It needs the packages `jax-cuda12-plugin` and `jax-cuda12-pjrt` (the extra
`gpu-programs`), but no driver and no CUDA. Figures are the makers'.
"""

from __future__ import annotations

import dataclasses
import re

from jax.experimental import topologies

from mexjax.errors import ConfigError, unknown_name
from mexjax.target import Target


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Operations per second of dense matrix products, in 10^12.

    Attributes:
      bfloat16: of bfloat16 numbers.
      tf32: of float32 numbers rounded to TF32.
      float32: of float32 numbers.
    """

    bfloat16: float
    tf32: float
    float32: float

    def of(self, dtype: str, *, is_exact: bool = False) -> float:
        """Operations per second for products of a type; `is_exact`: float32 is not rounded."""
        if dtype in ("bfloat16", "bf16", "float16", "f16"):
            return self.bfloat16 * 1e12
        return (self.float32 if is_exact else self.tf32) * 1e12


# The first name that is a whole word of the device's name counts. Cards without units for one of
# the first two kinds compute it as the next.
PEAKS = {
    "GB300": Peaks(2500.0, 1250.0, 80.0),
    "B300": Peaks(2250.0, 1100.0, 75.0),
    "GB200": Peaks(2500.0, 1250.0, 80.0),
    "B200": Peaks(2250.0, 1100.0, 75.0),
    "GH200": Peaks(989.0, 495.0, 67.0),
    "H200 NVL": Peaks(835.0, 418.0, 60.0),
    "H200": Peaks(989.0, 495.0, 67.0),
    "H100 PCIe": Peaks(756.0, 378.0, 51.0),
    "H100 NVL": Peaks(835.0, 418.0, 60.0),
    "H100": Peaks(989.0, 495.0, 67.0),
    "H800": Peaks(989.0, 495.0, 67.0),
    "A100": Peaks(312.0, 156.0, 19.5),
    "A800": Peaks(312.0, 156.0, 19.5),
    "A40": Peaks(149.7, 74.8, 37.4),
    "A30": Peaks(165.0, 82.0, 10.3),
    "A10": Peaks(125.0, 62.5, 31.2),
    "A10G": Peaks(70.0, 35.0, 31.5),
    "L40S": Peaks(362.0, 183.0, 91.6),
    "L40": Peaks(181.0, 90.5, 90.5),
    "L4": Peaks(121.0, 60.0, 30.3),
    "RTX A6000": Peaks(154.8, 77.4, 38.7),
    "RTX 5090": Peaks(209.5, 104.8, 104.8),
    "RTX 4090": Peaks(165.0, 82.6, 82.6),
    "RTX 3090": Peaks(71.0, 35.6, 35.6),
    "V100": Peaks(15.7, 15.7, 15.7),
    "T4": Peaks(8.1, 8.1, 8.1),
}


def peaks_of(kind: str) -> tuple[str, Peaks] | None:
    """The entry of `PEAKS` for a device of the maker's name `kind`; None for an unknown one."""
    for name, peaks in PEAKS.items():
        if re.search(rf"\b{name}\b", kind):
            return name, peaks
    return None


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A device that may be absent.

    Attributes:
      kind: the maker's name.
      capability: compute capability, major and minor number.
      cores: streaming multiprocessors.
      units: float32 units of one of them.
      shared_bytes: shared memory of one of them.
      threads: most threads on one of them.
      clock_ghz: clock rate.
      l2_bytes: second-level cache.
      memory_bytes: memory.
      bytes_per_s: bandwidth of the memory.
    """

    kind: str
    capability: tuple[int, int]
    cores: int
    units: int
    shared_bytes: int
    threads: int
    clock_ghz: float
    l2_bytes: int
    memory_bytes: int
    bytes_per_s: float

    @property
    def peaks(self) -> Peaks:
        """What its matrix units can do."""
        entry = peaks_of(self.kind)
        if entry is None:
            raise ConfigError(f"No figures are known for {self.kind}.")
        return entry[1]

    @property
    def description(self) -> str:
        """A `GpuTargetConfigProto` as text."""
        major, minor = self.capability
        # Programs for Hopper use instructions of this very architecture only.
        feature = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
        fields = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 48 * 1024,
            "shared_memory_per_core": self.shared_bytes,
            "threads_per_core_limit": self.threads,
            "core_count": self.cores,
            "fpus_per_core": self.units,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 2**16 - 1,
            "block_dim_limit_z": 2**16 - 1,
            "memory_bandwidth": int(self.bytes_per_s),
            "l2_cache_size": self.l2_bytes,
            "clock_rate_ghz": self.clock_ghz,
            "device_memory_size": self.memory_bytes,
            "shared_memory_per_block_optin": self.shared_bytes - 1024,
            "registers_per_core_limit": 2**16,
            "registers_per_block_limit": 2**16,
            # XLA makes CUDA graphs of products only where it knows these versions.
            "driver_version": '"13.0.0"',
            "runtime_version": '"12.9.0"',
            "compile_time_toolkit_version": '"12.9.0"',
            "dnn_version": '"9.10.0"',
        }
        lines = "\n".join(f"  {name}: {value}" for name, value in fields.items())
        return (
            f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {major}"
            f" minor: {minor} feature_extension: {feature} }}\n}}\n"
            "runtime_version { major: 12 minor: 9 patch: 0 }\n"
            'platform_name: "CUDA"\n'
            "dnn_version_info { major: 9 minor: 10 patch: 0 }\n"
            f'device_description_str: "{self.kind}"\n'
        )


GPUS = {
    "h200": Gpu(
        "NVIDIA H200", (9, 0), 132, 128, 228 * 1024, 2048, 1.98, 50 * 2**20, 141 * 2**30, 4.8e12
    ),
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3",
        (9, 0), 132, 128, 228 * 1024, 2048, 1.98, 50 * 2**20, 79 * 2**30, 3.35e12,
    ),
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB",
        (8, 0), 108, 64, 164 * 1024, 2048, 1.41, 40 * 2**20, 79 * 2**30, 2.04e12,
    ),
    "l4": Gpu(
        "NVIDIA L4", (8, 9), 58, 128, 100 * 1024, 1536, 2.04, 48 * 2**20, 22 * 2**30, 0.3e12
    ),
}  # fmt: skip
# Bytes per second of the memory of a GPU that is none of these.
BYTES_PER_S = 2e12
MOST_DEVICES = 8  # of one machine
_ORDER = re.compile(r"([a-z]+[0-9]+)(?:x([0-9]{1,9}))?$")


def bandwidth_of(kind: str) -> float:
    """Bytes per second of the memory of a device of the maker's name `kind`.

    Args:
      kind: such as `NVIDIA H200`; `BYTES_PER_S` is the answer for one that is none of `GPUS`.
    """
    name = (peaks_of(kind) or ("", None))[0].lower()
    return GPUS[name].bytes_per_s if name in GPUS else BYTES_PER_S


def parse(text: str) -> tuple[Gpu, int]:
    """A device and a number of devices, from a text such as `h200` or `h200x8`.

    Raises:
      ConfigError: the text is not of this form, or the device is unknown.
    """
    match = _ORDER.match(text.strip().lower())
    if not match or not 1 <= int(match[2] or 1) <= MOST_DEVICES:
        raise ConfigError(
            f"Not understood: {text[:40]!r}. Expected a GPU and how many of it, from 1 to"
            f" {MOST_DEVICES}, such as {' or '.join(GPUS)}, or h200x8."
        )
    if match[1] not in GPUS:
        raise ConfigError(unknown_name("GPU", match[1], GPUS))
    return GPUS[match[1]], int(match[2] or 1)


def absent(gpu: Gpu, count: int = 1) -> Target:
    """A target of `count` devices of one machine, none of which needs to be there.

    Raises:
      ConfigError: the packages that compile for NVIDIA's devices are not installed, or refuse.
    """
    try:
        topology = topologies.get_topology_desc(
            topology_name=gpu.kind,
            platform="cuda",
            target_config=gpu.description,
            topology=f"1x1x{count}",
        )
    except Exception as error:  # JAX raises what its plugin raises
        text = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"Programs for {gpu.kind} need the packages jax-cuda12-plugin and jax-cuda12-pjrt of"
            f" this jax: pip install 'mexjax[gpu-programs]'. JAX says: {text}"
        ) from error
    return Target(tuple(topology.devices))
