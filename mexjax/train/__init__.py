"""From a configuration and a folder to a recorded run."""

__all__ = [
    "augment",
    "batches",
    "checkpoint",
    "cost",
    "flops",
    "fold_axis",
    "frozen",
    "group",
    "optim",
    "plan",
    "programs",
    "record",
    "run",
    "step",
    "stop",
    "study",
    "workdir",
]
