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
    "file_inputs",
    "flops",
    "fold_axis",
    "frozen",
    "group",
    "inputs",
    "kept",
    "numerics",
    "optim",
    "plan",
    "planner",
    "program_key",
    "programs",
    "record",
    "run",
    "step",
    "stop",
    "study",
    "sweep",
    "trial_numbers",
    "trials",
    "watch",
    "workdir",
]
