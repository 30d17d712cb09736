"""Methods made of `fastloaa.adapt`: Look-Aside Adapters, the parallel adapter, and the head alone."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastloaa.adapters.adapting import adapt
from fastloaa.adapters.config import AdapterOptions, BranchOptions
from fastloaa.adapters.files import ADAPTER_FILE, load_adapter, save_adapter
from fastloaa.adapters.loaa import Kernel, LoAA
from fastloaa.files import read_safetensors, understanding
from fastloaa.inputs.options import OptionError, check_types
from fastloaa.models import AST
from fastloaa.models.architecture import check_architecture


class _AdapterFile:
    """Saving and loading for methods made of `adapt`: adapters and head, in an adapter file."""

    weights_file: ClassVar[str] = ADAPTER_FILE

    def save(self, model: AST, path: str | Path) -> None:
        save_adapter(model, path)

    def load(self, path: str | Path, weights: str | Path | None) -> AST:
        _, metadata = read_safetensors(path)
        with understanding(path, "an adapter file of a run"):
            config = dict(metadata["model"])
            check_architecture(path, config)
        return load_adapter(AST.from_config(config, weights), path)


@dataclass(frozen=True)
class LoAAMethod(_AdapterFile, AdapterOptions):
    """Look-Aside Adapters and the head; the options are those of `fastloaa.adapt`."""

    name: ClassVar[str] = "loaa"

    def __post_init__(self) -> None:
        check_types(self)
        if self.attn is None and self.ffn is None:
            raise OptionError('loaa has neither attn nor ffn; give a kernel for one, or choose the method "probe"')
        options = asdict(self)
        del options["normed_input"]
        for kernel in filter(None, (options.pop("attn"), options.pop("ffn"))):
            _check_adapter(self.name, kernel, options)

    def apply(self, model: AST) -> AST:
        return adapt(model, **asdict(self))


@dataclass(frozen=True)
class ParallelMethod(_AdapterFile, BranchOptions):
    """Linear bottlenecks beside attention and FFN (He et al., ICLR 2022), what LoAA is with kernels of (1, 1).

    The default is LoAA's comparison at 5% of the parameters (section 3.3).
    """

    name: ClassVar[str] = "parallel"

    bottleneck: int = 108

    def __post_init__(self) -> None:
        check_types(self)
        _check_adapter(self.name, "linear", asdict(self))

    def apply(self, model: AST) -> AST:
        return adapt(model, attn="linear", ffn="linear", **asdict(self))


@dataclass(frozen=True)
class ProbeMethod(_AdapterFile):
    """Linear probe: the head alone (LayerNorm + Linear)."""

    name: ClassVar[str] = "probe"

    def apply(self, model: AST) -> AST:
        return adapt(model, attn=None, ffn=None)


def _check_adapter(method: str, kernel: Kernel, options: dict[str, Any]) -> None:
    """The module's own checks, before any data has been read."""
    try:
        LoAA(dim=1, kernel=kernel, freq_bins=1, device="meta", **options)
    except ValueError as error:
        raise OptionError(f"{method}: {error}") from error
