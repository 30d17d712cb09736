"""What an exported file computes, as a PyTorch module."""

import copy

from torch import Tensor, nn

from fastloaa.adapter import LoAA
from fastloaa.functional import Backend
from fastloaa.models import AST


class Inference(nn.Module):
    """`AST` from waveform (or normalised log-mel) to logits and probabilities.

    Holds a copy of the model in float32 on the CPU in evaluation mode; the model itself is left as it is.

    Args:
        model: adapted or not.
        waveform: read waveforms, by the model's front end; else what the front end returns.
        backend: of the copy's adapters.
    """

    def __init__(self, model: AST, waveform: bool, backend: Backend) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().requires_grad_(False)
        self.waveform = waveform
        for module in self.model.modules():
            if isinstance(module, LoAA):
                module.backend = backend
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Waveform [batch, samples] or log-mel [batch, frames, mel_bins] -> logits, probabilities [batch, classes]."""
        logits = self.model(self.model.front_end(x) if self.waveform else x)
        return logits, logits.softmax(dim=1)
