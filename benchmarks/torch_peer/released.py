"""Networks out of a user's own checkout of the released code, with this package's interface."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn


class ReleasedFDP(nn.Module):
    """`FDP` of CYF-cuber/FDP: five classes, gray clips of 8 frames at 64 x 64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Maps f32[B,T,1,H,W] to `logits` f32[B,5] and `dynamic_image` f32[B,64,64]."""
        logits, image = self.network(clip[:, None])
        return {"logits": logits, "dynamic_image": image}


# File of the checkout, class in it, and the module that makes its outputs a dict.
RELEASED: dict[str, tuple[str, str, Callable[[nn.Module], nn.Module]]] = {
    "fdp": ("fdp.py", "FDP", ReleasedFDP)
}


def load(model: str, folder: str) -> nn.Module:
    """The network of a checkout.

    Raises:
      SystemExit: a model whose released network is not wrapped here, no such file or class, or a
        package of the checkout is missing.
    """
    if model not in RELEASED:
        raise SystemExit(
            f"--peer-path takes a checkout of {', '.join(RELEASED)}, not of {model}. Leave it out:"
            " the project's own network in PyTorch is timed."
        )
    file, name, wrap = RELEASED[model]
    path = Path(folder) / file
    if not path.is_file():
        raise SystemExit(f"--peer-path={folder}: expected {file} of the released code there.")
    spec = importlib.util.spec_from_file_location(f"released_{model}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise SystemExit(f"{path}: {error}. Install what the released code needs.") from error
    finally:
        sys.path.remove(str(path.parent))
    if not hasattr(module, name):
        raise SystemExit(f"{path}: expected a class {name}, found none.")
    return wrap(getattr(module, name)())
