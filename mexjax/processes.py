"""The processes that train one run together, by JAX's distributed runtime.

Folds need nothing of each other, so processes share a run by its groups of folds: each trains some
and records them in the folder of the run, and the first one joins the records and reports. They
meet only between the phases of a run.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from mexjax import signals
from mexjax.errors import ConfigError, MexjaxError, ProcessesError, beginning

WAIT_S = 300  # for processes that do not come
_GRACE_S = 60
_ERROR = 2  # exit status of a command that ends with an error


def are_announced(environment: Mapping[str, str] = os.environ) -> bool:
    """True if a scheduler has started this process as one of several.

    JAX finds the others by itself under SLURM (in a step of `srun`) and Open MPI.
    """
    has_step = "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment
    counts = [environment.get("SLURM_NTASKS", "") if has_step else ""]
    counts.append(environment.get("OMPI_COMM_WORLD_SIZE", ""))
    return any(count.isdecimal() and int(count) > 1 for count in counts)


def join(
    coordinator: str = "", count: int | None = None, index: int | None = None, wait_s: int = WAIT_S
) -> None:
    """Joins the other processes; JAX must not have computed anything before.

    Args:
      coordinator: address and port of the first process, as `node1:1234`; empty: what the scheduler
        says.
      count: number of processes; None: what the scheduler says.
      index: number of this process, from 0; None: what the scheduler says.
      wait_s: seconds to wait for the others.

    Raises:
      ConfigError: arguments that contradict each other or that neither they nor a scheduler give.
      ProcessesError: the processes cannot meet. If some do not come in time, the process ends with
        a line that says so, for JAX would abort it.
    """
    given = {"--coordinator": coordinator, "--num-processes": count, "--process-id": index}
    missing = [name for name, value in given.items() if value in ("", None)]
    if missing and len(missing) < len(given) and not are_announced():
        raise ConfigError(
            "Several processes need all of --coordinator=HOST:PORT, --num-processes and"
            f" --process-id; {' and '.join(missing)} is not given, and no scheduler says it."
        )
    if coordinator and not coordinator.rpartition(":")[2].isdecimal():
        raise ConfigError(f"--coordinator takes HOST:PORT, found {beginning(coordinator)}.")
    if count is not None and index is not None and not 0 <= index < count:
        raise ConfigError(
            f"--process-id is 0 to {count - 1} with --num-processes={count}, found {index}."
        )
    # JAX aborts the process with a trace of C++ when its own time is over, so ours ends first.
    alarm = threading.Timer(wait_s, _give_up, (coordinator, index, wait_s))
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator or None,
            num_processes=count,
            process_id=index,
            initialization_timeout=wait_s + _GRACE_S,
        )
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ProcessesError(
            f"The processes cannot meet at {coordinator or 'the address of the scheduler'}. JAX"
            f" says: {beginning(text, 200)}"
        ) from error
    finally:
        alarm.cancel()


def _give_up(coordinator: str, index: int | None, wait_s: int) -> None:
    """End this process, whose main thread waits in JAX, with one line."""
    where = coordinator or "the address that the scheduler gives"
    text = f"Not all processes came to {where} within {wait_s} s"
    if coordinator and index:
        host, _, port = coordinator.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            text += "; process 0 is there, and another one is missing"
        except OSError:
            text += "; process 0 is missing, for nothing answers there"
    signals.write_line(
        f"Error: {text}. Look whether each was started, with the same --coordinator and"
        " --num-processes, and whether the port is free and open."
    )
    os._exit(_ERROR)


def index() -> int:
    """The number of this process, 0 for the first."""
    return jax.process_index()


def count() -> int:
    """The number of processes; 1 without others."""
    return jax.process_count()


def is_first() -> bool:
    """True for the process that owns the folder of a run, and for one that is alone."""
    return jax.process_index() == 0


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """A phase of a run, at whose end all processes meet.

    Args:
      name: the phase, in a few words.

    Raises:
      ProcessesError: another process ended the phase with an error; this one goes no further.
    """
    if count() == 1:
        yield
        return
    error: BaseException | None = None
    try:
        yield
    except (MexjaxError, OSError) as own:
        error = own
    failed = np.flatnonzero(_gathered(np.array([error is not None], np.int32))[:, 0])
    if error is not None:
        raise error
    if len(failed):
        raise ProcessesError(
            f"Process {int(failed[0])} of {count()} stopped while {name}; its output says why. What"
            " is finished is kept: mend it and start all processes again."
        )


def agree(what: str, digest: str) -> None:
    """Refuses to go on where processes have different things.

    Args:
      what: the things, in words, for example `the configuration`.
      digest: hexadecimal digest of this process's.

    Raises:
      ConfigError: they differ; the message has the numbers of two processes.
    """
    if count() == 1:
        return
    own = np.frombuffer(bytes.fromhex(digest)[:16].ljust(16, b"\0"), np.int32)
    all_of_them = _gathered(own)
    others = np.flatnonzero((all_of_them != all_of_them[0]).any(axis=1))
    if len(others):
        raise ConfigError(
            f"Process {int(others[0])} has another {what} than process 0. Start all {count()}"
            " processes with the same command, and let all see the same data."
        )


def _gathered(values: np.ndarray) -> np.ndarray:
    """The arrays of all processes, stacked."""
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values, tiled=False))
