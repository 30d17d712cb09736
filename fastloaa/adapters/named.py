"""Several tasks on one model: adapters and heads by name, chosen for a whole batch or clip by clip."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from fastloaa.adapters.adapting import ModelT, open_blocks
from fastloaa.adapters.files import check_made_for, describe_backbone, load_adapter
from fastloaa.adapters.follow import set_grid
from fastloaa.adapters.record import adapt_config, is_adapted, note, record_of
from fastloaa.adapters.selection import Chosen, PerClip, Selection
from fastloaa.backbones import backbone_of
from fastloaa.errors import ArgumentError
from fastloaa.grid import TokenGrid
from fastloaa.inputs import check_module
from fastloaa.ops.normed import NormedFrom

_SITES = ("loaa_attn", "loaa_ffn")


def name_adapters(model: ModelT, adapters: Mapping[str, str | Path | nn.Module]) -> ModelT:
    """Put several adapters with their heads into one model, for inference; `model_adapters` says which answers.

    Args:
        model: one without adapters, as `adapt` takes. Changed in place, and frozen.
        adapters: by name, files of `save_adapter` or adapted models on the same backbone, which are copied. What else a
            model keeps for its task (an AST's labels) is not switched.

    Returns:
        `model` itself.

    Raises:
        ArgumentError: a model that has been adapted already, names that are none, or adapters of which some read the
            normed input of their blocks, some not.
        FileError, AdapterError: as `load_adapter`.

    Examples:
        >>> import copy
        >>> import torch
        >>> from fastloaa import AST, adapt, model_adapters, name_adapters
        >>> plain = AST(5, frames=64, backbone_options={"depth": 1, "embed_dim": 48, "num_heads": 3})
        >>> birds, frogs = (adapt(copy.deepcopy(plain), bottleneck=4) for _ in range(2))
        >>> model = name_adapters(plain, {"birds": birds, "frogs": frogs})
        >>> clips = torch.randn(3, 64, 128)
        >>> with model_adapters(model, "birds"):
        ...     for_all = model(clips)
        >>> with model_adapters(model, ["birds", "frogs", "birds"]):
        ...     one_for_each = model(clips)
    """
    check_module(model)
    if is_adapted(model):
        raise ArgumentError("the model has been adapted already; name adapters in one that has none")
    wrong = [name for name in adapters if not _is_name(name)]
    if wrong or not adapters:
        given = f"got {wrong[0]!r}" if wrong else "got none"
        raise ArgumentError(f"adapters go by names, words without a dot and not a method's of nn.ModuleDict; {given}")
    tasks = {name: _Task(name, model, source) for name, source in adapters.items()}
    inputs = {name: task.normed_input for name, task in tasks.items()}
    if len(set(inputs.values())) > 1:
        raise ArgumentError(f"adapters of one model all have normed_input=True, or none has; these have {inputs}")
    backbone, selection = backbone_of(model), Selection(tuple(tasks))
    open_blocks(backbone, next(iter(inputs.values())))
    for index, block in enumerate(backbone.blocks):
        for site in _SITES:
            here = {name: task.sites[index][site] for name, task in tasks.items() if task.sites[index][site]}
            setattr(block, site, SwitchedAdapters(selection, here) if here else None)
    for part, plain in backbone.head.items():
        heads = {name: task.head[part] for name, task in tasks.items()}
        setattr(model, part, SwitchedHead(selection, heads, plain))
    set_grid(model, backbone.grid)
    note(model, selection=selection)
    model.requires_grad_(False)
    return model.train(model.training)


@contextmanager
def model_adapters(model: ModelT, names: str | Sequence[str | None] | None) -> Iterator[ModelT]:
    """Within it, `model` answers with these of its adapters, in the calling thread (or asynchronous task) alone.

    Args:
        model: what `name_adapters` returned.
        names: one for the whole batch, or a list with one for each clip; None: without adapters, the model's own head.
            The heads of one batch have as many classes.

    Raises:
        ArgumentError: a model without named adapters, or a name that it has not.

    Examples:
        >>> import copy
        >>> import torch
        >>> from fastloaa import AST, adapt, model_adapters, name_adapters
        >>> plain = AST(5, frames=64, backbone_options={"depth": 1, "embed_dim": 48, "num_heads": 3})
        >>> adapted, clips = adapt(copy.deepcopy(plain), bottleneck=4), torch.randn(1, 64, 128)
        >>> model = name_adapters(plain, {"birds": adapted})
        >>> with model_adapters(model, "birds"):
        ...     torch.testing.assert_close(model(clips), adapted(clips))
    """
    check_module(model)
    selection = record_of(model).selection
    if selection is None:
        raise ArgumentError("the model has no adapters by name; name_adapters(model, {name: file}) puts them in")
    token = selection.choose(names)
    try:
        yield model
    finally:
        selection.forget(token)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name) and "." not in name and not hasattr(nn.ModuleDict(), name)


class _Task:
    """What `name_adapters` needs of one adapter: `sites` of each block and `head`, copies, and `normed_input`."""

    def __init__(self, name: str, model: nn.Module, source: str | Path | nn.Module) -> None:
        if isinstance(source, nn.Module):
            check_made_for(name, describe_backbone(source), describe_backbone(model))
            adapted = source
        else:
            adapted = load_adapter(copy.deepcopy(model), source)
        config = adapt_config(adapted)
        if config is None:
            raise ArgumentError(f"{name} has no adapters; give a model that adapt or load_adapter adapted, or a file")
        backbone = backbone_of(adapted)
        self.normed_input = config.normed_input
        self.sites = [{site: copy.deepcopy(getattr(block, site)) for site in _SITES} for block in backbone.blocks]
        self.head = {part: copy.deepcopy(module) for part, module in backbone.head.items()}


class SwitchedAdapters(nn.Module):
    """What stands beside attention or FFN (a `fastloaa.backbones.blocks.Branch`): the chosen adapter, or none."""

    def __init__(self, selection: Selection, adapters: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.selection = selection
        self.adapters = nn.ModuleDict(adapters)

    def set_grid(self, grid: TokenGrid) -> None:
        """Nothing to do: the adapters, submodules, are told themselves."""

    def forward(self, x: Tensor, block_out: Tensor, skip: Tensor, normed_from: NormedFrom | None = None) -> Tensor:
        """block_out + skip + the branch that each clip is to have; all [batch, tokens, dim]."""
        chosen = self.selection.now()
        if not isinstance(chosen, PerClip):
            return self._one(chosen, x, block_out, skip, normed_from)
        groups, places = chosen.rows(x)
        parts = [self._one(name, x[rows], block_out[rows], skip[rows], None) for name, rows in groups]
        return torch.cat(parts)[places]

    def _one(
        self, name: str | None, x: Tensor, block_out: Tensor, skip: Tensor, normed_from: NormedFrom | None
    ) -> Tensor:
        if name is None or name not in self.adapters:
            return skip + block_out
        return self.adapters[name](x, block_out, skip, normed_from)


class SwitchedHead(nn.Module):
    """A part of the head: that of the chosen adapter, or the model's own."""

    def __init__(self, selection: Selection, heads: Mapping[str, nn.Module], plain: nn.Module) -> None:
        super().__init__()
        self.selection, self.plain = selection, plain
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ...] -> [batch, ...], as the parts that it stands for.

        Raises:
            ArgumentError: heads of one batch that give unlike numbers of classes.
        """
        chosen: Chosen = self.selection.now()
        if not isinstance(chosen, PerClip):
            return self._one(chosen)(x)
        groups, places = chosen.rows(x)
        parts = [self._one(name)(x[rows]) for name, rows in groups]
        sizes = {name: tuple(part.shape[1:]) for (name, _), part in zip(groups, parts, strict=True)}
        if len(set(sizes.values())) > 1:
            raise ArgumentError(
                f"the heads of one batch give as many classes, these give {sizes}; ask the model once for each"
            )
        return torch.cat(parts)[places]

    def _one(self, name: str | None) -> nn.Module:
        return self.plain if name is None else self.heads[name]
