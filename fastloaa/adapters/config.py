"""What can be said of adapters, declared once: `adapt`, recipes, files and the command line take it from here."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fastloaa.adapters.loaa import Kernel, kernel_size
from fastloaa.inputs import number, whole
from fastloaa.ops.functional import Backend


@dataclass(frozen=True)
class BranchOptions:
    """What single adapters are like; as for `LoAA`."""

    bottleneck: int = 36
    bias: bool = False
    scale: float = 1.0
    dropout: float = 0.0
    activation: str = "gelu"
    backend: Backend = field(default="auto", compare=False)  # how they run, not what they are


@dataclass(frozen=True)
class AdapterOptions(BranchOptions):
    """And where they stand; the defaults are the paper's best at 5% of the parameters.

    Attributes:
        attn, ffn: kernels beside attention and FFN, None for no adapters there.
        normed_input: they read the output of their block's norm, not the residual stream before it.
    """

    attn: Kernel | None = "time"
    ffn: Kernel | None = "freq"
    normed_input: bool = True


@dataclass(frozen=True)
class AdaptConfig(AdapterOptions):
    """The same with everything checked, as a model keeps it and adapter files have it; kernels are (frequency, time).

    Raises:
        ArgumentError: a kernel, width or scale that is none.
    """

    attn: tuple[int, int] | None = (1, 3)
    ffn: tuple[int, int] | None = (3, 1)

    def __post_init__(self) -> None:
        checked = {
            "attn": None if self.attn is None else kernel_size(self.attn),
            "ffn": None if self.ffn is None else kernel_size(self.ffn),
            "bottleneck": whole("bottleneck", self.bottleneck),
            "bias": bool(self.bias),
            "scale": number("scale", self.scale),
            "dropout": number("dropout", self.dropout),
            "normed_input": bool(self.normed_input),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def branch(self) -> dict[str, Any]:
        """Arguments for `LoAA`, all but the kernel and the grid."""
        return {option.name: getattr(self, option.name) for option in fields(BranchOptions)}

    def to_json(self) -> dict[str, Any]:
        """Without the backend, which the next machine chooses for itself."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if name != "backend"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "AdaptConfig":
        kernels = {site: values[site] and tuple(values[site]) for site in ("attn", "ffn")}
        return cls(**(values | kernels))
