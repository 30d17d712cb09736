"""An exponential moving average of the weights that train."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fastloaa.training.checkpoint import changing_state, load_state


class MovingAverage:
    """Beside the model, where it is, and of what training changes alone: a frozen backbone is not kept twice.

    The decay rises with the steps to what is asked for, `min(decay, (1 + step) / (10 + step))`, so that a short run
    does not end with what it began with. Buffers are the model's.

    Args:
        model: as training begins, or goes on.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.state = {name: tensor.detach().clone() for name, tensor in changing_state(model).items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on with what a checkpoint had."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        now, parameters = changing_state(self.model), dict(self.model.named_parameters())
        averaged = [name for name in self.state if name in parameters]
        for name in self.state.keys() - averaged:
            self.state[name].copy_(now[name])
        decay = min(self.decay, (1 + step) / (10 + step))
        update = get_ema_multi_avg_fn(decay)
        update([self.state[name] for name in averaged], [now[name].detach() for name in averaged], None)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the model has the average's weights."""
        own = {name: tensor.detach().clone() for name, tensor in changing_state(self.model).items()}
        load_state(self.model, self.state)
        try:
            yield
        finally:
            load_state(self.model, own)
