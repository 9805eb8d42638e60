"""Several folds in one PyTorch program: `torch.func.vmap` over stacked networks."""

from __future__ import annotations

from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from mexjax.train.study import Study
from torch_peer.training import Side, apply, make_optimizer


class FoldSide(Side):
    """A group of folds, one update of all of them at a time."""

    def __init__(self, study: Study, layout: str, num_folds: int) -> None:
        super().__init__(study, layout)
        self.num_folds = num_folds

    def start(self) -> None:
        """Makes new networks, each of its own draw, and one optimizer over all."""
        self.start_fold(0)
        models = [self.model, *(self.make_model() for _ in range(self.num_folds - 1))]
        self.params, self.buffers = stack_module_state(models)
        self.optimizer = make_optimizer(self.params.values(), self.config)

        def loss_of(
            params: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Tensor
        ) -> Tensor:
            clip, target, label = batch
            outputs = functional_call(self.model, (params, buffers), (clip,))
            return self.peer.loss(outputs, target, label, self.keys)

        # Every fold draws its own dropout.
        self.gradients = vmap(grad(loss_of), randomness="different")

    def update(self, idx: Tensor, rate: float) -> None:
        """One training step of every fold, on the clips `idx` i64[F,B]."""
        clip, target, label = self.batch(idx.flatten())
        by_fold = [x.unflatten(0, idx.shape) for x in (clip, target, label)]
        params = {name: value.detach() for name, value in self.params.items()}
        gradients = self.gradients(params, self.buffers, *by_fold)
        for name, value in self.params.items():
            value.grad = gradients[name]
        apply(self.optimizer, rate)
