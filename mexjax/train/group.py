"""Training of one group of folds from its checkpoint, or from nothing, to its record."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mexjax.cpu.heap import KeptHeap
from mexjax.errors import CheckpointError, DivergedError, Interrupted
from mexjax.progress import TrainProgress
from mexjax.train.checkpoint import GroupCheckpoints
from mexjax.train.fold_axis import Carry
from mexjax.train.plan import pad_folds, take_folds
from mexjax.train.programs import Compiled, num_params
from mexjax.train.step import Arrays, FoldPlan
from mexjax.train.stop import StopRequest
from mexjax.train.study import Schedule, Study
from mexjax.train.workdir import Workdir


@dataclasses.dataclass
class History:
    """The record of a group so far, which is saved with its state.

    Attributes:
      logits: f32[k, E, M, K], held-out logits of each evaluation.
      curves: f32[k, num_epochs, L], mean logged values of each epoch.
      seconds: f64[3], training, evaluation, and clips trained on.
    """

    logits: np.ndarray
    curves: np.ndarray
    seconds: np.ndarray

    def tree(self) -> dict[str, np.ndarray]:
        """The record as a tree of arrays."""
        return dataclasses.asdict(self)


def train_group(
    study: Study,
    folder: Workdir,
    compiled: Compiled,
    data: Arrays,
    index: int,
    session: Session,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Trains one group of folds unless it is recorded, and records it.

    Args:
      study: the run.
      folder: folder of the run.
      compiled: the programs of a group.
      data: arrays from `mexjax.train.programs.device_data`, on the device.
      index: number of the group.
      session: see `Session`.

    Returns:
      The record, and f64[3], seconds of training and of evaluation, and clips trained on; zeros if
      it was recorded before.
    """
    width = compiled.num_folds
    rows = slice(index * width, (index + 1) * width)
    layout = take_folds(study.plan, rows)
    before = folder.load_group(index)
    if before is not None:
        check_group(before["fold_id"], layout.fold_id, folder.group_file(index))
        session.progress.skip(int(layout.valid.sum()))
        return before, np.zeros(3)
    names = [fold.name for fold in study.folds[rows]]
    session.progress.enter_folds(rows.start, len(names), len(study.folds))
    padded = pad_folds(layout, width)
    with GroupCheckpoints(folder.checkpoint_folder(index)) as checkpoints:
        trainer = GroupTrainer(compiled, padded, data, study.schedule, names, checkpoints, session)
        outputs = trainer.run()
        seconds = outputs["seconds"]
        record = record_of(outputs, layout, compiled, num_params(study, compiled, data))
        folder.save_group(index, record)
        checkpoints.remove()
    return record, seconds


def record_of(
    outputs: dict[str, np.ndarray], layout: FoldPlan, compiled: Compiled, num_params: int
) -> dict[str, np.ndarray]:
    """The record of a group: arrays with a leading axis of its folds, without padding.

    Args:
      outputs: see `GroupTrainer.run`.
      layout: the plan of the k folds.
      compiled: the programs of a group.
      num_params: parameters that a prediction needs.
    """
    k = len(layout.fold_id)
    record = {name: array[:k] for name, array in outputs.items() if name != "seconds"}
    curves = record.pop("curves")
    for i, name in enumerate(compiled.programs.log_names):
        record[f"curve_{name}"] = curves[..., i]
    record["num_params"] = np.full(k, num_params)
    record["fold_id"] = layout.fold_id
    record["seconds"] = np.tile(outputs["seconds"] / k, (k, 1))
    return record


def check_resume(position: int, steps_per_call: int, folder: Path) -> None:
    """Refuses a checkpoint that lies within a call of the training program.

    Raises:
      CheckpointError: it was written where a call has another number of steps.
    """
    if position % steps_per_call:
        raise CheckpointError(
            f"The checkpoint in {folder} was saved after step {position}, which lies within a call"
            f" of {steps_per_call} steps here: it was written on another kind of device. Go on"
            " there, or delete that folder to train these folds again; finished folds are kept."
        )


def check_group(recorded: np.ndarray, expected: np.ndarray, path: Path) -> None:
    """Refuses the record of a group that has other folds than the group has here.

    Raises:
      CheckpointError: the folds i32[k] differ.
    """
    if not np.array_equal(recorded, expected):
        raise CheckpointError(
            f"{path} has the folds {recorded.tolist()}, but this group has"
            f" {np.asarray(expected).tolist()}: the run was begun with other groups. Delete that"
            " file to train its folds again; the others are kept."
        )


class Session(NamedTuple):
    """Surroundings of training.

    Attributes:
      progress: the progress display.
      stop: the request to stop.
      heap: the heap.
      step_bytes: temporary memory of a call of the training program. XLA takes as long as a step to
        answer this question, so it is asked once.
    """

    progress: TrainProgress
    stop: StopRequest
    heap: KeptHeap
    step_bytes: int


class GroupTrainer:
    """Runs one group; everything it needs is given to it, and it looks nothing up."""

    def __init__(
        self,
        compiled: Compiled,
        plan: FoldPlan,
        data: Arrays,
        schedule: Schedule,
        names: list[str],
        checkpoints: GroupCheckpoints,
        session: Session,
        failures: dict[int, str] | None = None,
    ) -> None:
        """Places the plan on the devices.

        Args:
          compiled: the programs of a group.
          plan: plan of its folds, padded.
          data: arrays from `device_data`, on the device.
          schedule: times of evaluations and checkpoints.
          names: names of the folds, without padding.
          checkpoints: those of the group.
          session: see `Session`.
          failures: takes the message of each fold whose numbers are not finite, and the others go
            on; None: the first such fold ends the training.
        """
        self.failures = failures
        self.compiled, self.schedule, self.names = compiled, schedule, names
        self.checkpoints, self.session = checkpoints, session
        self.progress, self.stop = session.progress, session.stop
        self.host_plan, self.data = plan, data
        programs = compiled.programs
        self.plan = jax.device_put(plan, programs.folded)
        self.batches = [
            jax.device_put(np.int32(j), programs.shared) for j in range(plan.eval_idx.shape[1])
        ]
        logits = compiled.eval_shape["logits"]
        k, m, classes = logits.shape
        shape = (k, len(schedule.eval_epochs), m * len(self.batches), classes)
        self.history = History(
            logits=np.full(shape, np.nan, np.float32),
            curves=np.full((k, schedule.num_epochs, len(programs.log_names)), np.nan, np.float32),
            seconds=np.zeros(3),
        )

    def run(self) -> dict[str, np.ndarray]:
        """Trains to the end.

        Returns:
          `logits`, `curves`, `seconds`, and every other array that `predictions` gave at the last
          evaluation, as `extra_<name>` [k, M, ...].

        Raises:
          DivergedError: a loss or logit is not finite; the last good checkpoint is kept.
          Interrupted: a stop was asked for; the state is saved.
        """
        position, carry = self._start()
        self.session.heap.reserve_hole(self.session.step_bytes)
        self.progress.skip(self._fold_steps(0, position))
        schedule, outputs = self.schedule, {}
        epoch_start, saved_at = position, time.perf_counter()
        saved_epoch = position // schedule.epoch_steps
        began = saved_at
        while position < schedule.num_steps:
            carry = self._call(position, carry)
            position += schedule.steps_per_call
            if position % schedule.epoch_steps:
                if self.stop:
                    raise self._interrupted(position, carry)
                continue
            epoch = position // schedule.epoch_steps
            self._record_epoch(epoch, jax.device_get(carry.logs))
            trained = time.perf_counter()
            clips = self._num_clips(epoch_start, position)
            self.history.seconds += (trained - began, 0.0, clips)
            self._show(epoch, epoch_start, position, clips)
            if epoch in schedule.eval_epochs:
                outputs = self._evaluate(epoch, carry)
                self.history.seconds[1] += time.perf_counter() - trained
            if position < schedule.num_steps:
                if self.stop:
                    raise self._interrupted(position, carry)
                if self._is_due(epoch - saved_epoch, time.perf_counter() - saved_at):
                    self._save(position, carry)
                    saved_epoch, saved_at = epoch, time.perf_counter()
            began, epoch_start = time.perf_counter(), position
        return self.history.tree() | {f"extra_{name}": array for name, array in outputs.items()}

    def _is_due(self, epochs: int, seconds: float) -> bool:
        """True if so many epochs and seconds after the last checkpoint the next one is due."""
        schedule = self.schedule
        is_late = seconds >= schedule.checkpoint_seconds
        return 0 < schedule.checkpoint_every <= epochs and is_late

    def _num_clips(self, start: int, end: int) -> int:
        """Clips that the steps from `start` to `end` train on, over all folds."""
        steps = slice(start, end)
        valid = self.host_plan.valid[:, steps, None]
        return int((self.host_plan.weight[:, steps] * valid).sum())

    def _call(self, position: int, carry: Carry) -> Carry:
        """One call of the training program, or none if no fold of the group has these steps."""
        end = position + self.schedule.steps_per_call
        if self.host_plan.valid[:, position:end].any():
            with jax.transfer_guard("disallow"):
                return self.compiled.train(carry, self.plan, self.data)
        position_after = jax.device_put(np.int32(end), self.compiled.programs.shared)
        return dataclasses.replace(carry, position=position_after)

    def _start(self) -> tuple[int, Carry]:
        programs, shape = self.compiled.programs, self.compiled.carry_shape
        carry = Carry(
            states=_placed(shape.states, programs.folded),
            position=_placed(shape.position, programs.shared),
            logs=_placed(shape.logs, programs.folded),
        )
        like = {"carry": carry, "history": self.history.tree()}
        restored = self.checkpoints.restore(like)
        if restored is None:
            return 0, self.compiled.init(self.plan, self.data)
        position, tree = restored
        check_resume(position, self.schedule.steps_per_call, self.checkpoints.folder)
        self.history = History(**{name: np.array(a) for name, a in tree["history"].items()})
        self._restore_failures(position // self.schedule.epoch_steps)
        self.progress.say(f"resuming at step {position}")
        return position, tree["carry"]

    def _restore_failures(self, num_epochs: int) -> None:
        """Notes again the folds that failed in the epochs before a checkpoint."""
        if self.failures is None:
            return
        steps = self.schedule.epoch_steps * num_epochs
        valid = self.host_plan.valid[:, :steps].reshape(-1, num_epochs, self.schedule.epoch_steps)
        done = [i for i, epoch in enumerate(self.schedule.eval_epochs) if epoch <= num_epochs]
        curves = np.isfinite(self.history.curves[:, :num_epochs]).all(axis=-1)
        bad = (valid.any(axis=-1) & ~curves).any(axis=-1)
        bad |= ~np.isfinite(self.history.logits[:, done]).all(axis=(1, 2, 3))
        for fold, name in enumerate(self.names):
            if bad[fold]:
                text = f"A loss or prediction of fold {name} is not finite before epoch"
                self._diverged(fold, f"{text} {num_epochs + 1}.")

    def _save(self, position: int, carry: Carry) -> None:
        # The history goes on changing while orbax writes in the background.
        history = {name: array.copy() for name, array in self.history.tree().items()}
        self.checkpoints.save(position, {"carry": carry, "history": history})

    def _interrupted(self, position: int, carry: Carry) -> Interrupted:
        """Saves the state, and gives the error that says so."""
        self._save(position, carry)
        self.checkpoints.wait()
        name = self.stop.signal_name
        text = f"Stopped by {name}; the state is saved. Start the same command again to go on."
        return Interrupted(text, name)

    def _diverged(self, fold: int, text: str) -> None:
        """Ends the training of a group, or notes the fold that failed."""
        if self.failures is None:
            raise DivergedError(f"{text} {self._after_divergence()}")
        self.failures.setdefault(fold, text)

    def _after_divergence(self) -> str:
        return (
            f"Finished folds and the last good checkpoint (if there was one, in"
            f" {self.checkpoints.folder}) are kept. Look at the data, or lower"
            " train.learning_rate and start in another --workdir or with --overwrite."
        )

    def _record_epoch(self, epoch: int, logs: np.ndarray) -> None:
        """Checks the epoch's values (f32[k, S, L]) and keeps their means over valid steps."""
        steps = self.schedule.epoch_steps
        valid = self.host_plan.valid[:, (epoch - 1) * steps : epoch * steps]
        bad = valid & ~np.isfinite(logs).all(axis=-1)
        for step, fold in np.argwhere(bad.T):
            names = self.compiled.programs.log_names
            values = ", ".join(f"{n}={v:.4g}" for n, v in zip(names, logs[fold, step], strict=True))
            self._diverged(
                int(fold),
                f"The loss of fold {self.names[fold]} is not finite in epoch {epoch}, step"
                f" {step + 1} of the epoch ({values}).",
            )
        count = valid.sum(axis=1)
        has = count > 0
        sums = np.where(valid[:, :, None], logs, 0.0).sum(axis=1)
        self.history.curves[has, epoch - 1] = sums[has] / count[has, None]

    def _evaluate(self, epoch: int, carry: Carry) -> dict[str, np.ndarray]:
        with jax.transfer_guard("disallow"):
            parts = [
                self.compiled.evaluate(carry.states, j, self.plan, self.data) for j in self.batches
            ]
        is_last = epoch == self.schedule.num_epochs
        if not is_last:  # only the last evaluation's other outputs are recorded
            parts = [{"logits": part["logits"]} for part in parts]
        host: list[dict[str, Any]] = jax.device_get(parts)
        joined = {name: np.concatenate([p[name] for p in host], axis=1) for name in host[0]}
        logits = joined.pop("logits")
        real = [f for f in range(len(self.names)) if self.host_plan.valid[f].any()]
        for fold in real:
            if not np.isfinite(logits[fold]).all():
                self._diverged(
                    fold,
                    f"A held-out prediction of fold {self.names[fold]} is not finite after epoch"
                    f" {epoch}.",
                )
        self.history.logits[:, self.schedule.eval_epochs.index(epoch)] = logits
        return joined if is_last else {}

    def _fold_steps(self, start: int, end: int) -> int:
        return int(self.host_plan.valid[:, start:end].sum())

    def _show(self, epoch: int, start: int, end: int, clips: int) -> None:
        names = self.compiled.programs.log_names
        curves = self.history.curves[:, epoch - 1, names.index("loss")]
        loss = float(np.nanmean(curves)) if np.isfinite(curves).any() else float("nan")
        folds = self.names[0] if len(self.names) == 1 else f"{self.names[0]} .. {self.names[-1]}"
        self.progress.update(
            self._fold_steps(start, end),
            clips,
            folds=folds,
            epoch=f"epoch {epoch}/{self.schedule.num_epochs}",
            loss=loss,
        )


def _placed(tree: Any, sharding: Any) -> Any:
    """The shapes of `tree` with a sharding, in which a checkpoint is read back."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
