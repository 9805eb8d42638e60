"""Micro-AU CLIP in PyTorch: the network that `benchmarks/step_time.py` measures against.

The towers have OpenAI's names, so that `mexjax.interop.clip` moves their weights; the rest has the
names and layouts of mexjax. As a PyTorch program of the paper would be: frozen blocks run in every
step, without gradients, and all tokens go through the last block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mexjax.data.landmark_tokens import AU_LANDMARKS
from mexjax.interop import clip as clip_names
from mexjax.models.micro_au_clip.network import MicroAUClip
from mexjax.nn.clip import IMAGE_MEAN, IMAGE_STD, ClipSize, TowerSize
from mexjax.train.study import Study
from torch_peer import training


class Block(nn.Module):
    """A pre-norm transformer block, named as OpenAI's."""

    def __init__(self, tower: TowerSize, activation: str, is_causal: bool) -> None:
        super().__init__()
        self.heads, self.is_causal, self.activation = tower.num_heads, is_causal, activation
        width = tower.width
        self.attn = nn.MultiheadAttention(width, tower.num_heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, tower.mlp_width), "c_proj": nn.Linear(tower.mlp_width, width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = functional.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = (
            part.reshape(n, length, self.heads, -1).transpose(1, 2) for part in qkv.chunk(3, -1)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        x = x + self.attn.out_proj(y.transpose(1, 2).reshape(n, length, width))
        hidden = self.mlp["c_fc"](self.ln_2(x))
        if self.activation == "quick_gelu":
            hidden = hidden * torch.sigmoid(1.702 * hidden)
        else:
            hidden = functional.gelu(hidden)
        return x + self.mlp["c_proj"](hidden)


class Transformer(nn.Module):
    """Blocks, of which the first may be frozen."""

    def __init__(self, tower: TowerSize, activation: str, is_causal: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            Block(tower, activation, is_causal) for _ in range(tower.depth)
        )

    def forward(self, x: Tensor, first: int, last: int) -> Tensor:
        for block in self.resblocks[first:last]:
            x = block(x)
        return x


class Vision(nn.Module):
    """The image tower."""

    def __init__(self, size: ClipSize, activation: str) -> None:
        super().__init__()
        width, px = size.image.width, size.patch_px
        self.conv1 = nn.Conv2d(3, width, px, px, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(size.grid**2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(size.image, activation, False)
        self.proj = nn.Parameter(torch.empty(width, size.embed_width))

    def embed(self, image: Tensor) -> Tensor:
        """f32[B,3,S,S] to tokens."""
        x = self.conv1(image).flatten(2).transpose(1, 2)
        token = self.class_embedding.expand(len(x), 1, -1)
        return self.ln_pre(torch.cat([token, x], 1) + self.positional_embedding)


class UnitMlp(nn.Module):
    """Two linear layers for each unit."""

    def __init__(self, units: int, width: int, hidden: int, features: int) -> None:
        super().__init__()
        self.kernel_1 = nn.Parameter(torch.empty(units, width, hidden))
        self.bias_1 = nn.Parameter(torch.empty(units, hidden))
        self.kernel_2 = nn.Parameter(torch.empty(units, hidden, features))
        self.bias_2 = nn.Parameter(torch.empty(units, features))

    def forward(self, x: Tensor) -> Tensor:
        """f32[N,M,d], the units first, to f32[N,M,features]."""
        hidden = torch.baddbmm(self.bias_1[:, None], x, self.kernel_1).relu()
        return torch.baddbmm(self.bias_2[:, None], hidden, self.kernel_2)


class UnitFeatures(nn.Module):
    """Patch token attention and global dependency attention."""

    def __init__(self, c: Mapping[str, Any], units: int, width: int) -> None:
        super().__init__()
        self.token_scores = UnitMlp(units, width, c["pooling_width"], 1)
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Parameter(torch.empty(width, width)))
        self.dependency_weight = nn.Parameter(torch.empty(units))
        self.dependency_bias = nn.Parameter(torch.empty(units))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """f32[B,N,J,d] and bool[N,J] to features f32[B,N,d] and shares f32[B,N]."""
        b, n, j, d = tokens.shape
        scores = self.token_scores(tokens.transpose(0, 1).reshape(n, b * j, d))
        scores = scores.reshape(n, b, j).transpose(0, 1).masked_fill(~mask, -torch.inf)
        own = (scores.softmax(-1)[..., None] * tokens).sum(2)
        attention = (own @ self.query) @ (own @ self.key).transpose(1, 2)
        attention = (attention * d**-0.5).softmax(-1)
        share = (self.dependency_weight @ attention + self.dependency_bias).relu().softmax(-1)
        state = (share[..., None] * own).sum(1) @ self.value
        return own + state[:, None], share


class Network(nn.Module):
    """The whole network with its loss.

    Attributes:
      c: the model's keys; the defaults of the paper's main model are what is done.
    """

    def __init__(self, module: MicroAUClip) -> None:
        super().__init__()
        c = self.c = dataclasses.asdict(module.options)
        asked = {"token_space": "joint", "branches": "both", "pooling": "attention"}
        asked |= {"fusion": "gda", "fc_mode": "incoming", "contrast": "bce", "dropout_rate": 0.0}
        for key, value in asked.items():
            if c[key] != value:
                raise SystemExit(f"The PyTorch peer does model.{key}={value}, found {c[key]}.")
        size, units = module.size, module.units
        self.visual = Vision(size, module.activation)
        self.token_embedding = nn.Embedding(size.vocabulary, size.text.width)
        self.positional_embedding = nn.Parameter(torch.empty(size.context, size.text.width))
        self.transformer = Transformer(size.text, module.activation, True)
        self.ln_final = nn.LayerNorm(size.text.width)
        self.text_projection = nn.Parameter(torch.empty(size.text.width, size.embed_width))
        self.unit_features = UnitFeatures(c, len(units), size.embed_width)
        self.heads = UnitMlp(len(units), size.embed_width, c["head_width"], 2)
        counts = [len(AU_LANDMARKS[unit]) for unit in units]
        self.register_buffer("mask", torch.arange(6) < torch.tensor(counts)[:, None])
        self.register_buffer("ids", torch.tensor(module.texts.units))

    def load(self, params: Mapping[str, Any]) -> None:
        """Take the parameters of mexjax, a tree of arrays."""
        towers = {"params": {k: params[k] for k in ("image", "text")}}
        state = clip_names.to_torch(towers, naming="openai")
        for name in ("unit_features", "heads"):
            flat = flax.traverse_util.flatten_dict(params[name], sep=".")
            state |= {f"{name}.{key}": np.asarray(value) for key, value in flat.items()}
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        missing, surplus = self.load_state_dict(tensors, strict=False)
        assert not surplus and set(missing) <= {"mask", "ids"}, (missing, surplus)

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What is trained of the towers, and the rest; what is kept asks for no gradient."""
        towers, rest = [], []
        flat = dict(self.named_parameters())
        for name, parameter in flat.items():
            if name.startswith(("unit_features", "heads")):
                rest.append(parameter)
            elif _is_frozen(name, self.c):
                parameter.requires_grad_(False)
            else:
                towers.append(parameter)
        return towers, rest

    def forward(self, image: Tensor, places: Tensor) -> dict[str, Tensor]:
        """f32[B,3,S,S] and i64[B,N,6] to logits f32[B,N,2], cosines f32[B,N,2], share f32[B,N]."""
        first = self.c["trainable_from"]
        visual, end = self.visual, len(self.visual.transformer.resblocks)
        with torch.set_grad_enabled(torch.is_grad_enabled() and first == 0):
            x = visual.transformer(visual.embed(image), 0, first)
            text = self.token_embedding(self.ids)
            text = text + self.positional_embedding[: self.ids.shape[1]]
            text = self.transformer(text, 0, first)
        x = visual.ln_post(visual.transformer(x, first, end)) @ visual.proj
        text = self.ln_final(self.transformer(text, first, len(self.transformer.resblocks)))
        text = text[torch.arange(len(text)), self.ids.argmax(1)] @ self.text_projection
        b, n, j = places.shape
        index = (places.clamp_min(0) + 1).reshape(b, n * j, 1).expand(-1, -1, x.shape[-1])
        tokens = x.gather(1, index).reshape(b, n, j, -1)
        features, share = self.unit_features(tokens, self.mask)
        unit, texts = functional.normalize(features, dim=-1), functional.normalize(text, dim=-1)
        cosines = torch.einsum("bnd,nkd->bnk", unit, texts.reshape(n, 2, -1))
        logits = self.heads(features.transpose(0, 1)).transpose(0, 1)
        return {"unit_logits": logits, "cosines": cosines, "share": share}


def _is_frozen(name: str, c: Mapping[str, Any]) -> bool:
    """Whether a parameter of a tower is kept, by its OpenAI name."""
    first = c["trainable_from"]
    if first == 0:
        return False
    if "resblocks." in name:
        return int(name.split("resblocks.")[1].split(".", maxsplit=1)[0]) < first
    behind = ("visual.ln_post", "visual.proj", "ln_final", "text_projection")
    return not (c["train_projections"] and name.startswith(behind))


def loss(outputs: Mapping[str, Tensor], label: Tensor, c: Mapping[str, Any]) -> Tensor:
    """Multi-task cross-entropy, contrast as binary cross-entropy, dependency loss; batch mean."""
    b, n = label.shape
    logits = outputs["unit_logits"].reshape(b * n, 2)
    total = n * functional.cross_entropy(logits, label.reshape(-1))
    matches = (label[:, None] == label[None]).float()  # [i,j,n]
    wrong, right = outputs["cosines"].unbind(-1)
    m = torch.where(label[None] > 0, right[:, None], wrong[:, None])
    contrast = functional.binary_cross_entropy_with_logits(c["contrast_scale"] * m, matches)
    gd = (outputs["share"] - label).square().mean()
    return total + c["alpha"] * n * contrast + c["beta"] * gd


class Side(training.Side):
    """A study of Micro-AU CLIP on a device."""

    def __init__(self, study: Study, layout: str, *, path: str = "") -> None:
        if path:
            raise SystemExit("No code of Micro-AU CLIP was released: leave out --peer-path.")
        self.config, self.layout = study.config, layout
        self.device = training.prepare_torch(study.config)
        images = np.moveaxis(study.dataset.clips[:, 0], -1, 1).copy()
        self.clips = torch.from_numpy(images).to(self.device)
        self.labels = torch.from_numpy(study.dataset.labels.astype(np.int64)).to(self.device)
        places = study.dataset.views["landmark_tokens"].astype(np.int64)
        self.places = torch.from_numpy(places).to(self.device)
        self.keys = dataclasses.asdict(study.options)
        self.module = study.module
        shape = (1, 3, 1, 1)
        self.mean, self.std = (
            torch.tensor(values, device=self.device).reshape(shape)
            for values in (IMAGE_MEAN, IMAGE_STD)
        )

    def start_fold(self, number: int) -> None:
        """A new network and optimizer, seeded with the fold's number."""
        torch.manual_seed(number)
        self.model = Network(self.module).to(self.device).train()
        for parameter in self.model.parameters():
            nn.init.normal_(parameter, std=0.02)
        towers, rest = self.model.groups()
        train = self.config.train
        options = {"momentum": train.momentum} if train.optimizer == "sgd" else {}
        make = torch.optim.SGD if options else training.OPTIMIZERS[train.optimizer]
        self.groups = [{"params": towers, "factor": self.keys["tower_rate"]}, {"params": rest}]
        self.optimizer = make(
            self.groups, lr=1e-3, weight_decay=train.weight_decay, fused=True, **options
        )

    def image(self, idx: Tensor) -> Tensor:
        """f32[B,3,S,S], normalised."""
        return (self.clips[idx].float() / 255.0 - self.mean) / self.std

    def update(self, idx: Tensor, rate: float) -> None:
        """One training step on the clips `idx` i64[B] at a learning rate."""
        outputs = self.model(self.image(idx), self.places[idx])
        total = loss(outputs, self.labels[idx], self.keys)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        self.optimizer.step()

    def predict(self, idx: Tensor) -> np.ndarray:
        """i64[B,N], which units the clips `idx` show."""
        self.model.eval()
        with torch.inference_mode():
            outputs = self.model(self.image(idx), self.places[idx])
        return outputs["unit_logits"].argmax(-1).cpu().numpy()
