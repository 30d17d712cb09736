"""LoAA, the module."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastloaa.errors import ArgumentError
from fastloaa.grid import TokenGrid, TokenOrder
from fastloaa.inputs import as_tensor, number, whole
from fastloaa.ops.activations import check_activation
from fastloaa.ops.autocast import autocast_dtype
from fastloaa.ops.functional import BACKENDS, TOKENS, Backend, Choice, choose_backend, loaa
from fastloaa.ops.normed import NormedFrom

torch.fx.wrap("loaa")  # symbolic tracing sees one node: the checks of shapes in it need tensors

Kernel = Literal["time", "freq", "linear"] | tuple[int, int]
KERNELS: dict[str, tuple[int, int]] = {"time": (1, 3), "freq": (3, 1), "linear": (1, 1)}


def kernel_size(kernel: Kernel) -> tuple[int, int]:
    """(frequency, time) taps of a kernel given by name or as an odd pair.

    Raises:
        ArgumentError: an unknown name, an even or non-positive size.
    """
    try:
        taps_f, taps_t = KERNELS[kernel] if isinstance(kernel, str) else kernel
        size = (whole("kernel", taps_f), whole("kernel", taps_t))
    except (KeyError, TypeError, ValueError):
        size = (0, 0)
    if size[0] % 2 == 0 or size[1] % 2 == 0:
        names = ", ".join(f'"{name}" = {value}' for name, value in KERNELS.items())
        raise ArgumentError(f"kernel is {names}, or a pair (frequency, time) of odd sizes; got {kernel!r}")
    return size


class LoAA(nn.Module):
    """Look-Aside Adapter beside a transformer block (LoAA, Interspeech 2024, section 2.3).

    The down- and up-projections are 1-D convolutions along time or frequency of the token grid. `down` starts from
    Kaiming, `up` from zero, so the adapted model starts as the model it was.

    Args:
        dim: width of the tokens, d.
        bottleneck: width of the hidden rows, r.
        kernel: "time" = (1, 3), "freq" = (3, 1), "linear" = (1, 1), or any odd pair (frequency, time).
        freq_bins, prefix_tokens, token_order: the grid, see `TokenGrid`; time steps follow from the token count.
        bias: biases on both convolutions. The paper's parameter counts say it has none.
        scale: factor on the branch.
        dropout: probability of dropping a hidden activation in training.
        activation: "gelu" (exact), "gelu_tanh", "relu" or "silu", or what was added to `ACTIVATIONS`.
        backend: "auto", "triton", "torch" or "reference"; all give the same result within rounding.

    Attributes:
        initialisation: digest of the weights that training started from, by which `fastloaa.average` knows adapters of
            one origin; None where it is not known, as after `load_state_dict`. Adapter files keep it.

    `down.weight` [r, d, kf, kt] and `up.weight` [d, r, kf, kt] are those of Conv2d, so the state dict of an adapter
    made of plain Conv2d loads unchanged.

    Raises:
        ArgumentError: sizes below one, an even kernel, a dropout outside [0, 1), an unknown name.

    Examples:
        >>> import torch
        >>> from fastloaa import LoAA
        >>> layer = LoAA(768, bottleneck=36, kernel="time", freq_bins=8, prefix_tokens=2)
        >>> normed, attention_out, x = torch.randn(3, 1, 2 + 8 * 64, 768)
        >>> layer(normed, attention_out, x).shape  # attention_out + x + branch, in one pass
        torch.Size([1, 514, 768])
        >>> layer.down.weight.shape, layer.up.weight.shape
        (torch.Size([36, 768, 1, 3]), torch.Size([768, 36, 1, 3]))
        >>> print(layer.explain(x))
        torch: GEMM and shifted sums are the fastest on a CPU
    """

    def __init__(
        self,
        dim: int,
        bottleneck: int,
        kernel: Kernel = "time",
        *,
        freq_bins: int,
        prefix_tokens: int = 0,
        token_order: TokenOrder = "freq",
        bias: bool = False,
        scale: float = 1.0,
        dropout: float = 0.0,
        activation: str = "gelu",
        backend: Backend = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dim, bottleneck = whole("dim", dim), whole("bottleneck", bottleneck)
        scale, dropout = number("scale", scale), number("dropout", dropout)
        if not 0.0 <= dropout < 1.0:
            raise ArgumentError(f"dropout is a probability in [0, 1), got {dropout}")
        check_activation(activation)
        if backend not in BACKENDS:
            raise ArgumentError(f"backend is one of {', '.join(BACKENDS)}; got {backend!r}")
        TokenGrid(freq_bins, 1, prefix_tokens, token_order)  # its own errors for a bad grid
        size = kernel_size(kernel)
        self.freq_bins, self.prefix_tokens, self.token_order = freq_bins, prefix_tokens, token_order
        self.scale, self.dropout, self.activation, self.backend = scale, dropout, activation, backend
        padding = (size[0] // 2, size[1] // 2)
        options: dict[str, Any] = {"padding": padding, "bias": bias, "device": device, "dtype": dtype}
        self.down = nn.Conv2d(dim, bottleneck, size, **options)
        self.up = nn.Conv2d(bottleneck, dim, size, **options)
        self.initialisation: str | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming for `down`, zero for `up` (and biases as Conv2d has them, `up`'s zero)."""
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        self.initialisation = _digest(self.down.weight)
        nn.init.zeros_(self.up.weight)
        for bias in (self.down.bias, self.up.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def set_grid(self, grid: TokenGrid) -> None:
        """Keep to another grid: the one of the model around it, when that has changed."""
        self.freq_bins, self.prefix_tokens, self.token_order = grid.freq_bins, grid.prefix_tokens, grid.token_order

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
        if any(name.startswith(prefix) for name in state_dict):  # not those of the backbone or the head alone
            self.initialisation = None

    def forward(
        self,
        x: Tensor,
        block_out: Tensor | None = None,
        skip: Tensor | None = None,
        normed_from: NormedFrom | None = None,
    ) -> Tensor:
        """The branch, plus `block_out` and `skip` where given, in one pass.

        Args:
            x: [batch, tokens, dim], the normed input of the block.
            block_out, skip: [batch, tokens, dim], the block's own output and the residual stream.
            normed_from: what x is the LayerNorm of, where training is to recompute x rather than keep it (`loaa`).

        Returns:
            [batch, tokens, dim].
        """
        x = as_tensor("x", x, self.down.weight, TOKENS)
        hidden_mask = None
        if self.training and self.dropout:
            ones = x.new_ones(x.shape[0], x.shape[1], self.down.out_channels, dtype=self.down.weight.dtype)
            hidden_mask = F.dropout(ones, self.dropout)
        down, up = self.down, self.up  # a module looks its parts up slowly
        return loaa(
            x,
            down.weight,
            up.weight,
            freq_bins=self.freq_bins,
            prefix_tokens=self.prefix_tokens,
            token_order=self.token_order,
            block_out=block_out,
            skip=skip,
            down_bias=down.bias,
            up_bias=up.bias,
            hidden_mask=hidden_mask,
            normed_from=normed_from,
            scale=self.scale,
            activation=self.activation,
            backend=self.backend,
        )

    def explain(self, x: Tensor) -> Choice:
        """Which backend will run for input `x`, and why; print it."""
        dtype = autocast_dtype(x.device.type) or x.dtype
        size, rank = self.down.kernel_size, self.down.out_channels
        return choose_backend(x, size, rank, self.backend, dtype, self.activation)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return (
            f"freq_bins={self.freq_bins}, prefix_tokens={self.prefix_tokens}, token_order={self.token_order!r}, "
            f"scale={self.scale}, dropout={self.dropout}, activation={self.activation!r}, backend={self.backend!r}"
        )


def _digest(weight: Tensor) -> str | None:
    if weight.is_meta:
        return None
    return hashlib.sha256(weight.detach().cpu().float().contiguous().numpy().data).hexdigest()
