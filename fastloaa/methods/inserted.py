"""What methods share that insert modules of their own beside a frozen backbone."""

from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from fastloaa.adapters.files import ADAPTER_FILE, check_made_for, describe_backbone, warn_of_rest
from fastloaa.adapters.record import is_adapted, note, record_of
from fastloaa.backbones import OpenBlock, backbone_of
from fastloaa.errors import ArgumentError
from fastloaa.files import FileError, check_tensors, read_safetensors, understanding, write_safetensors
from fastloaa.inputs.options import build
from fastloaa.models import AST
from fastloaa.models.architecture import check_architecture


class InsertedMethod(ABC):
    """A method that inserts modules into the blocks of a transformer and trains those and the head.

    Subclasses are frozen dataclasses with a `name` and an `insert`; freezing, saving and loading are here.
    """

    name: ClassVar[str]
    weights_file: ClassVar[str] = ADAPTER_FILE

    @abstractmethod
    def insert(self, model: AST) -> None:
        """Put the modules in, on the device and in the dtype of their block; `apply` says what trains."""

    def apply(self, model: AST) -> AST:
        """Insert, freeze what was there, leave what is new and the head trainable; in place.

        Raises:
            ArgumentTypeError: blocks that are not x + attn(norm1(x)), x + mlp(norm2(x)), or not for this method.
            ArgumentError: a model that has been adapted already.
        """
        if is_adapted(model):
            raise ArgumentError("the model has been adapted already; build a fresh one")
        backbone = backbone_of(model)
        for index, block in enumerate(backbone.blocks):
            OpenBlock(block, backbone.layout(index, block))  # both refuse what cannot be taken apart
        there = {id(parameter) for parameter in model.parameters()}
        names = {id(parameter): name for name, parameter in backbone.blocks.named_parameters()}
        self.insert(model)
        now = {name: id(parameter) for name, parameter in backbone.blocks.named_parameters()}
        note(model, names_before={name: names[key] for name, key in now.items() if key in names})
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) not in there)
        for head in backbone.head.values():
            head.requires_grad_(True)
        note(model, trained=frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad))
        return model

    def save(self, model: AST, path: str | Path) -> None:
        """Write what was inserted and the head, the options, and which backbone they belong to, as safetensors.

        Raises:
            ArgumentError: a model that nothing was inserted into.

        Warns:
            UserWarning: more trains than that, and is not in the file.
        """
        state = _trained(model)
        if not state:
            raise ArgumentError(f"nothing of the method {self.name!r} is in the model; apply(model) puts it there")
        warn_of_rest(model, state)
        metadata = {
            "kind": "method",
            "method": self.name,
            "options": asdict(self),  # type: ignore[call-overload]  # subclasses are dataclasses
            "backbone": describe_backbone(model),
            "model": model.config(),
        }
        write_safetensors(path, state, metadata)

    def load(self, path: str | Path, weights: str | Path | None) -> AST:
        """The model that `save` wrote, with the options that it was saved with.

        Raises:
            FileError: missing, damaged, or saved by another method.
            AdapterError: `weights` are not those that it was trained beside.
        """
        state, metadata = read_safetensors(path)
        if metadata.get("method") != self.name:
            raise FileError(f"{path}: was not saved by the method {self.name!r}")
        with understanding(path, f"a file of the method {self.name!r}"):
            config, made_for, options = dict(metadata["model"]), dict(metadata["backbone"]), dict(metadata["options"])
            check_architecture(path, config)
        model = AST.from_config(config, weights)
        check_made_for(path, made_for, describe_backbone(model))
        largest = max((value for value in options.values() if isinstance(value, int)), default=0)
        if largest > sum(tensor.numel() for tensor in state.values()):  # or so much would be made
            raise FileError(f"{path}: damaged, its tensors are too small for {options}; save it again")
        build(type(self), options, self.name).apply(model)
        check_tensors(path, _trained(model), state)
        model.load_state_dict(state, strict=False)
        return model


def _trained(model: AST) -> dict[str, Tensor]:
    """Whether or not it is frozen by now."""
    names = record_of(model).trained
    return {name: parameter for name, parameter in model.named_parameters() if name in names}


def like(block: nn.Module) -> dict[str, Any]:
    """Device and dtype of a block, as arguments for the modules that go into it."""
    first = next(block.parameters())
    return {"device": first.device, "dtype": first.dtype}
