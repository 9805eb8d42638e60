"""The interface of a paper: all that training, data and reports ask of it, with defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax.errors import ConfigError, unknown_name
from mexjax.models.options import read_options

if TYPE_CHECKING:
    from mexjax.data.dataset import Dataset
    from mexjax.protocol.splits import Fold

ArrayDict = dict[str, jax.Array]
ParamPath = tuple[str, ...]


class Paper:
    """One published system.

    A paper is a folder in `mexjax/models/` with a subclass of this class and a line in
    `mexjax.models.MODELS`. `name`, `presets`, `network` and `loss` must be given, every
    other member has a default. A subclass may define no other public name: a misspelt member is an
    error when the class is made.

    Options are the frozen dataclass of the paper: `options` reads them once from `config.model`,
    and every other method takes them.

    Attributes:
      name: key of the paper in `mexjax.models.MODELS`.
      presets: options by name. `paper` is the text, `official` the released code, `tiny` a small
        network for the embedded dataset.
      views: values of `data.view` that the network takes.
      tasks: values of `protocol.task` that the network is made for.
      training_only: names of top-level parameters that no prediction needs.
      on_request: names of predictions that are kept only with `eval.keeps_features`.
      loss_numbers: options that `loss` alone reads, and that may be arrays f32[] there; above zero
        each leaves the network and the terms of the loss as they are.
      weights: module with `from_torch(state, **kwargs)` and `to_torch(variables, **kwargs)`, if
        weights were released.
    """

    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Any]]
    views: ClassVar[tuple[str, ...]] = ("uniform",)
    tasks: ClassVar[tuple[str, ...]] = ("emotion",)
    training_only: ClassVar[tuple[str, ...]] = ()
    on_request: ClassVar[tuple[str, ...]] = ()
    loss_numbers: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[ModuleType | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        allowed = set(dir(Paper)) | set(Paper.__annotations__)
        for name in vars(cls):
            if not name.startswith("_") and name not in allowed:
                members = sorted(key for key in allowed if not key.startswith("_"))
                raise TypeError(unknown_name(f"member of the paper {cls.__name__}", name, members))

    def options(self, model: Mapping[str, Any], dtype: str | None = None) -> Any:
        """The options of a configuration.

        Args:
          model: `config.model`: name, preset, and options that differ from the preset's.
          dtype: the type that `config.precision` asks for in all models; None leaves the preset's.

        Raises:
          ConfigError: see `mexjax.models.options.read_options`.
        """
        keys = dict(model.items()) | ({} if dtype is None else {"dtype": dtype})
        return read_options(self.name, self.presets, keys)

    # These members are about the network and its training.

    def network(self, options: Any, classes: Sequence[str]) -> nn.Module:
        """The linen module for the classes or action units of a dataset, given by their names.

        Its `__call__(batch, *, train)` takes what `inputs` and `clip_views` give, and returns a
        dict of named outputs.
        """
        raise NotImplementedError(f"{type(self).__name__} has no network.")

    def loss(
        self, outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array], options: Any
    ) -> tuple[jax.Array, ArrayDict]:
        """The loss of each clip, f32[B], and its parts by name, f32[B], which are logged.

        Args:
          outputs: outputs of the network.
          batch: the batch that the network saw, with `label`, `subject` i32[B], `weight` f32[B]
            (0 for padding), `targets` and `fold_arrays`.
          options: options of the paper.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss.")

    def inputs(self, clip: jax.Array, options: Any) -> ArrayDict:
        """Entries of the batch that normalised clips f32[B,T,H,W,C] give."""
        del options
        return {"clip": clip}

    def targets(self, frames: jax.Array, options: Any) -> ArrayDict:
        """Entries of the batch that the loss compares with, from frames f32[B,T,H,W,C] in [0, 1].

        The frames are those after augmentation and before normalisation.
        """
        del frames, options
        return {}

    def predictions(self, outputs: Mapping[str, jax.Array]) -> ArrayDict:
        """The outputs that are recorded of a held-out clip; `logits` f32[B,K] must be one."""
        return {"logits": outputs["logits"]}

    def rate_factor(self, path: ParamPath, options: Any) -> float:
        """The learning rate of the parameter at `path`, over `train.learning_rate`."""
        del path, options
        return 1.0

    def freezes_norms(self, options: Any) -> bool:
        """True if batch norm keeps its statistics after the first epoch.

        The batch then has an entry `is_frozen` bool[].
        """
        del options
        return False

    # These members are about weights that training starts from or keeps (`mexjax.train.frozen`).

    def start(self, options: Any) -> dict[str, Any]:
        """Parameters that every fold starts from instead of a draw: parts of the tree."""
        del options
        return {}

    def start_statistics(self, options: Any) -> dict[str, Any]:
        """Batch statistics that every fold starts from: parts of the tree."""
        del options
        return {}

    def is_frozen(self, path: ParamPath, options: Any) -> bool:
        """True if the parameter at `path` keeps the value it starts from."""
        del path, options
        return False

    def may_draw_frozen(self, options: Any) -> bool:
        """True if parameters that are kept may be drawn at random, which only timing needs."""
        del options
        return False

    # These members are about data beside the view of `data.view`.

    def follows_frames_with_flow(self, options: Any) -> bool:
        """True if optical flow follows the key frames of a clip (`mexjax.ops.flow_frames`)."""
        del options
        return False

    def clip_views(self, options: Any, units: tuple[int, ...]) -> dict[str, dict[str, Any]]:
        """Further views of each clip with their parameters: entries of every batch.

        Args:
          options: options of the paper.
          units: numbers of the action units of `protocol.units`.
        """
        del options, units
        return {}

    def clip_arrays(
        self, labels: np.ndarray, options: Any, units: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """Arrays [N, ...] that the labels of N clips give: entries of every batch."""
        del labels, options, units
        return {}

    def fold_arrays(
        self, dataset: Dataset, folds: Sequence[Fold], options: Any
    ) -> dict[str, np.ndarray]:
        """Arrays [F, ...] that a fold's own training clips give.

        They are entries of every training batch of the fold, and of the batch that initialises.
        """
        del dataset, folds, options
        return {}

    # These members are about reports.

    def features(
        self,
        config: ConfigDict,
        dataset: Dataset,
        rows: np.ndarray,
        outputs: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """The arrays of features.npz; nothing, if the paper keeps none.

        Args:
          config: the whole configuration.
          dataset: all clips.
          rows: i[N], the row of each held-out clip in the dataset.
          outputs: their `predictions` without the logits, [N, ...].
        """
        del config, dataset, rows, outputs
        return {}

    def notices(self, config: ConfigDict) -> list[str]:
        """Sentences that a reader of the report must know before the numbers."""
        del config
        return []

    # These members are about weights under the names of PyTorch.

    def from_torch(
        self, state: Mapping[str, np.ndarray], **kwargs: Any
    ) -> tuple[nn.Module, dict[str, Any]]:
        """The module and its variables that a state dict of the released code holds."""
        return self._released_weights().from_torch(dict(state), **kwargs)

    def to_torch(self, variables: Mapping[str, Any], **kwargs: Any) -> dict[str, np.ndarray]:
        """The state dict of `variables` under the names and in the layout of the released code."""
        return self._released_weights().to_torch(variables, **kwargs)

    def _released_weights(self) -> ModuleType:
        if self.weights is None:
            raise ConfigError(f"No released PyTorch weights of {self.name} are known.")
        return self.weights
