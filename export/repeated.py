"""Blocks that differ in their weights alone: one of them is translated, the others are copies of its nodes.

torch.onnx.export takes the same time for every node, and onnxscript's rewriting more the more there are. So it is given
one block of each kind; marks in the graph say where that one begins and ends, and where the others stand.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from fastloaa.adapters.follow import FollowGrid
from fastloaa.errors import FastloaaError
from fastloaa.extras import optional

DOMAIN = "fastloaa"  # of the marks, which are gone when the graph is written
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_IDENTITIES = (nn.Identity, nn.Dropout, DropPath)  # in evaluation mode, whatever their rate


class NotRepeatedError(FastloaaError, RuntimeError):
    """Blocks that cannot be copies of each other in this graph: each is to be translated."""


class Repeated:
    """What stands for blocks while a module is translated.

    Args:
        module: what is translated.
        blocks: a part of it, one after the other.

    Attributes:
        likes: for blocks that are copies, the number of the one that they are copies of.
    """

    def __init__(self, module: nn.Module, blocks: nn.Sequential | nn.ModuleList) -> None:
        self.blocks, self.originals = blocks, list(blocks)
        names = {id(child): name for name, child in module.named_modules()}
        self.paths = [names[id(block)] for block in blocks]
        self.likes: dict[int, int] = {}
        self.calls: dict[int, list[Any]] = {}
        if len({id(block) for block in blocks}) == len(blocks):
            for number, block in enumerate(blocks):
                firsts = (other for other in range(number) if other not in self.likes)
                like = next((other for other in firsts if alike(blocks[other], block)), None)
                if like is not None:
                    self.likes[number] = like

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Marks in the place of blocks that are copies, and around those that they are copies of."""
        hooks = []
        for first in sorted(set(self.likes.values())):
            block = self.blocks[first]
            hooks.append(block.register_forward_pre_hook(self._enter(first), with_kwargs=True))
            hooks.append(block.register_forward_hook(self._leave(first)))
        for number in self.likes:
            self.blocks[number] = _StandIn(self, number)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for number in self.likes:
                self.blocks[number] = self.originals[number]

    def call(self, number: int, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Note how a block is called; returns the tensors among its arguments."""
        tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
        kinds = {name: (value.dtype, str(value.shape)) for name, value in tensors.items()}
        # What cannot be compared is equal to nothing.
        others = {name: value if _is_plain(value) else object() for name, value in arguments.items()}
        self.calls.setdefault(number, []).append(others | kinds)
        return tensors

    def _enter(self, first: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            arguments = _named(args, kwargs)
            for index, (name, value) in enumerate(self.call(first, arguments).items()):
                arguments[name] = _mark("Enter", [value], value, block=first, argument=index)
            return tuple(arguments[str(index)] for index in range(len(args))), {
                name: arguments[name] for name in kwargs
            }

        return hook

    def _leave(self, first: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
            if args and isinstance(out, Tensor) and (out.dtype, out.shape) == (args[0].dtype, args[0].shape):
                return _mark("Leave", [out], out, block=first)
            self.calls[first].append("gives another shape or dtype than a mark")
            return out

        return hook

    @contextmanager
    def hidden(self, graph: Any) -> Iterator[None]:
        """The weights of blocks that there are copies of are inputs of an `onnx_ir.Graph`.

        So nothing is computed of them in advance, and none is made one with an equal one elsewhere: their copies are
        other weights.
        """
        hidden = []
        for first in sorted(set(self.likes.values())):
            for name in self._weights(first):
                if name not in graph.initializers:
                    raise NotRepeatedError(f"{name} goes by another name")
                hidden.append(graph.initializers.pop(name))
        tensors = [value.const_value for value in hidden]
        for value in hidden:
            value.const_value = None
            graph.inputs.append(value)
        try:
            yield
        finally:
            for value, tensor in zip(hidden, tensors, strict=True):
                graph.inputs.remove(value)
                value.const_value = tensor
                graph.initializers[value.name] = value

    def _weights(self, number: int) -> dict[str, nn.Parameter]:
        """The parameters of a block by their names in the module."""
        named = self.originals[number].named_parameters(remove_duplicate=False)
        return {f"{self.paths[number]}.{name}": parameter for name, parameter in named}

    def expand(self, graph: Any) -> None:
        """Nodes in the place of marks, in an `onnx_ir.Graph`.

        Raises:
            NotRepeatedError: the blocks are not called in one way, or some are not found as they were called.
        """
        for number, first in self.likes.items():
            calls = [*self.calls.get(first, [None]), *self.calls.get(number, [None])]
            if any(call != calls[0] for call in calls):
                raise NotRepeatedError(f"{self.paths[first]} and {self.paths[number]} are called in different ways")
        for first in sorted(set(self.likes.values())):
            self._expand(graph, first)

    def _expand(self, graph: Any, first: int) -> None:
        marks = [(node.op_type, node.attributes["block"].as_int(), node) for node in graph if node.domain == DOMAIN]
        leaves = [node for kind, block, node in marks if (kind, block) == ("Leave", first)]
        copies = [(block, node) for kind, block, node in marks if kind == "Block" and self.likes[block] == first]
        expected = [number for number, like in self.likes.items() if like == first]
        if len(leaves) != 1 or sorted(number for number, _ in copies) != expected:
            raise NotRepeatedError(f"{self.paths[first]} is not called once for each copy")
        (leave,), entries = leaves, {}
        for node in (node for kind, block, node in marks if (kind, block) == ("Enter", first)):
            index = node.attributes["argument"].as_int()
            # What all are given alike, such as rotary positions, is no part of them, nor what is computed of it alone.
            if all(mark.inputs[index] is node.inputs[0] for _, mark in copies):
                _replace(graph, node, node.inputs[0])
            else:
                entries[index] = node
        weights = [graph.initializers[name] for name in self._weights(first)]
        body = _between(graph, [node.outputs[0] for node in entries.values()], weights, leave)
        for number, mark in copies:
            values = {node.outputs[0]: mark.inputs[index] for index, node in entries.items()}
            for value, (name, tensor) in zip(weights, self._weights(number).items(), strict=True):
                values[value] = _initializer(graph, name, tensor)
            graph.insert_before(mark, _copied(body, values, self.paths[first], self.paths[number]))
            _replace(graph, mark, values[leave.inputs[0]])
        for node in (leave, *entries.values()):
            _replace(graph, node, node.inputs[0])


class _StandIn(nn.Module):
    """Takes what a block takes and gives a tensor like the first of it."""

    def __init__(self, repeated: Repeated, number: int) -> None:
        super().__init__()
        self._stands_for = repeated, number

    def __getattr__(self, name: str) -> Any:
        repeated, number = vars(self)["_stands_for"]
        if hasattr(repeated.originals[number], name):  # no AttributeError: hasattr() would take that for an answer
            raise NotRepeatedError(f"the model looks for {name} in a block")
        return super().__getattr__(name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        repeated, number = self._stands_for
        return _mark("Block", repeated.call(number, _named(args, kwargs)).values(), args[0], block=number)


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**{str(index): value for index, value in enumerate(args)}, **kwargs}


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _mark(kind: str, inputs: Any, like: Tensor, **attributes: int) -> Tensor:
    operator, options = f"{DOMAIN}::{kind}", {"dtype": like.dtype, "shape": like.shape, "version": 1}
    return torch.onnx.ops.symbolic(operator, tuple(inputs), attributes, **options)  # type: ignore[arg-type]


def alike(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules in evaluation mode compute the same but for the values of their parameters."""
    ours, theirs = (list(module.named_modules(remove_duplicate=False)) for module in (first, second))
    if [name for name, _ in ours] != [name for name, _ in theirs]:
        return False
    if _sharing(first) != _sharing(second):
        return False
    return all(_alone(a) == _alone(b) and _same_own(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True))


def _sharing(module: nn.Module) -> list[int]:
    """For each parameter, the first that is the same tensor."""
    parameters = [id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False)]
    return [parameters.index(parameter) for parameter in parameters]


def _alone(module: nn.Module) -> tuple[Any, ...]:
    """What a module is, but for its children and the values in it."""
    parameters = [
        (name, None if parameter is None else (parameter.shape, parameter.dtype))
        for name, parameter in module._parameters.items()
    ]
    kind = nn.Identity if type(module) in _IDENTITIES else type(module)
    return kind, module.training, parameters


def _same_own(first: nn.Module, second: nn.Module) -> bool:
    """Whether buffers and attributes are equal."""
    hooks = [hook for module in (first, second) for hook in _hooks(module) if not isinstance(hook, FollowGrid)]
    if hooks:  # which may do anything
        return False
    ours, theirs = (
        {**module._buffers, **{name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}}
        for module in (first, second)
    )
    if type(first) in _IDENTITIES and not first.training and "forward" not in ours.keys() | theirs.keys():
        return True
    return ours.keys() == theirs.keys() and all(_equal(value, theirs[name]) for name, value in ours.items())


def _hooks(module: nn.Module) -> list[Any]:
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


def _equal(first: object, second: object) -> bool:
    try:
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            return (first.dtype, first.shape) == (second.dtype, second.shape) and torch.equal(first, second)
        return type(first) is type(second) and bool(first == second)
    except (TypeError, ValueError, RuntimeError):  # e.g. of arrays, of sparse tensors
        return False


def _between(graph: Any, entries: list[Any], weights: list[Any], leave: Any) -> list[Any]:
    """The nodes that compute what leaves a block from what enters it and its weights, in order."""
    given, following = {*entries, *weights}, []
    for node in graph:
        if any(value in given for value in node.inputs) and node is not leave:
            following.append(node)
            given.update(node.outputs)
    if leave.inputs[0] not in given:
        raise NotRepeatedError("a block makes nothing of what it is given")
    needed = {leave.inputs[0]}
    body: list[Any] = []
    for node in reversed(following):
        if any(value in needed for value in node.outputs):
            if node.domain == DOMAIN or any(each.type.name in ("GRAPH", "GRAPHS") for each in node.attributes.values()):
                raise NotRepeatedError(f"{node.op_type} is in a block")
            body.insert(0, node)
            needed.update(node.inputs)
    return body


def _initializer(graph: Any, name: str, tensor: Tensor) -> Any:
    ir = optional("onnx_ir")
    values = ir.Tensor(tensor.detach().numpy(), name=name)
    value = ir.Value(name=name, shape=values.shape, type=ir.TensorType(values.dtype), const_value=values)
    graph.register_initializer(value)
    return value


def _copied(body: list[Any], values: dict[Any, Any], path: str, own: str) -> list[Any]:
    """Copies of nodes under names of their own; `values` says what takes the place of what, and is added to."""
    ir, nodes = optional("onnx_ir"), []
    for node in body:
        renamed = node.name.replace(path, own, 1) if node.name.startswith(path) else f"{own}/{node.name}"
        outputs = [
            ir.Value(name=value.name and f"{own}/{value.name}", shape=value.shape, type=value.type)
            for value in node.outputs
        ]
        values.update(zip(node.outputs, outputs, strict=True))
        nodes.append(
            ir.Node(
                node.domain,
                node.op_type,
                [values.get(value, value) for value in node.inputs],
                node.attributes.values(),
                overload=node.overload,
                outputs=outputs,
                version=node.version,
                name=renamed,
            )
        )
    return nodes


def _replace(graph: Any, mark: Any, value: Any) -> None:
    """A mark goes, and a value takes the place of what it gave."""
    optional("onnx_ir").convenience.replace_all_uses_with(mark.outputs[0], value)
    graph.remove(mark, safe=True)
