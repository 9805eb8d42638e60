"""From a configuration and a folder to a recorded run.

`run.run(config, folder)` does it all. The modules are imported one by one, because most of them
bring JAX.
"""

__all__ = [
    "absent",
    "augment",
    "batches",
    "checkpoint",
    "cost",
    "draws",
    "flops",
    "fold_axis",
    "frozen",
    "group",
    "inputs",
    "numerics",
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
