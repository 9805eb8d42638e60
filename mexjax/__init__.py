"""Micro-expression recognition in JAX: whole leave-one-subject-out studies in minutes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mexjax.config import load_config
    from mexjax.data.loading import list_datasets
    from mexjax.models import from_torch, list_models, to_torch
    from mexjax.report.write import write_report
    from mexjax.train.run import run
    from mexjax.train.sweep import run_sweep

__version__ = "0.1.0"

# Names are resolved on first use: reading a configuration or a report must not wait for the models.
_PUBLIC = {
    "load_config": "mexjax.config",
    "run": "mexjax.train.run",
    "run_sweep": "mexjax.train.sweep",
    "write_report": "mexjax.report.write",
    "from_torch": "mexjax.models",
    "to_torch": "mexjax.models",
    "list_models": "mexjax.models",
    "list_datasets": "mexjax.data.loading",
}

__all__ = [
    "__version__",
    "from_torch",
    "list_datasets",
    "list_models",
    "load_config",
    "run",
    "run_sweep",
    "to_torch",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mexjax' has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
