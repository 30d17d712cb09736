"""What can be said of adapters, as a configuration of peft."""

from dataclasses import asdict, dataclass, field, fields, make_dataclass
from typing import Any

from peft import PeftConfig
from peft.utils import PeftType

from fastloaa.adapters.config import AdaptConfig, AdapterOptions
from fastloaa.adapters.loaa import LoAA

_NAMES = {option.name: option.name for option in fields(AdapterOptions)} | {"bias": "loaa_bias"}
"""What the options of `adapt` are called here: in peft `bias` says whether those of the base model train."""

_Declared: Any = make_dataclass(
    "_Declared",
    [(_NAMES[option.name], option.type, field(default=option.default)) for option in fields(AdapterOptions)],
    bases=(PeftConfig,),
)


@dataclass
class LoAAConfig(_Declared):
    """How `get_peft_model` puts Look-Aside Adapters beside the blocks of a transformer.

    Width, grid and prefix tokens are the model's. The options are those of `fastloaa.adapt`, by the same names and with
    the same defaults: attn, ffn, bottleneck, scale, dropout, activation, backend, normed_input; `bias` is called
    `loaa_bias`. Kernels are kept as pairs (frequency, time).

    Args:
        modules_to_save: what trains and is saved besides the adapters; None: the head of the model, found by itself;
            an empty list: nothing.
        target_modules: a pattern for the names of the blocks, filled in for each model.

    Raises:
        ArgumentError: settings that `LoAA` refuses.
    """

    modules_to_save: list[str] | None = None
    target_modules: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType("LOAA")
        checked = AdaptConfig(**{name: getattr(self, ours) for name, ours in _NAMES.items()})
        LoAA(1, kernel="linear", freq_bins=1, device="meta", **checked.branch())  # its own errors for the rest
        self.__dict__.update({ours: getattr(checked, name) for name, ours in _NAMES.items()})

    @property
    def adapt(self) -> AdaptConfig:
        """The same as a model that `adapt` has adapted keeps it."""
        return AdaptConfig(**{name: getattr(self, ours) for name, ours in _NAMES.items()})

    @classmethod
    def of(cls, config: AdaptConfig) -> "LoAAConfig":
        """For adapters that are there already."""
        return cls(**{_NAMES[name]: value for name, value in asdict(config).items()})

    def to_dict(self) -> dict[str, Any]:
        """Without the backend, which the next machine chooses for itself."""
        return {name: value for name, value in asdict(self).items() if name != "backend"}
