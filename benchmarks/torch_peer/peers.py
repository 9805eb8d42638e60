"""The networks by the name of their model.

Each file has three functions:

    make(keys, *, num_classes, num_frames, channels, image_size)
        makes the network for options as a dict; it maps normalised clips f32[B,T,C,H,W] to a dict
        with `logits` f32[B,K]
    target(frames, keys)
        gives its target beside the class, f32[B,...], for frames f32[B,T,C,H,W] in [0, 1]
    loss(outputs, target, label, keys)
        gives the mean loss of the batch
"""

from __future__ import annotations

from types import ModuleType

from torch_peer import fdp, gamdss, tsfmicro

PEERS: dict[str, ModuleType] = {"fdp": fdp, "gamdss": gamdss, "tsfmicro": tsfmicro}


def get_peer(model: str) -> ModuleType:
    """The file of a model.

    Raises:
      SystemExit: there is none; the message lists those that there are.
    """
    if model not in PEERS:
        raise SystemExit(
            f"There is no PyTorch side of {model}, but of {', '.join(PEERS)}. Add --peer=none."
        )
    return PEERS[model]
