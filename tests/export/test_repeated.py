"""Blocks that are alike are translated once; the graph is the one that translating each of them gives."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import timm
import torch
from onnx import numpy_helper
from timm.layers import DropPath
from torch import Tensor, nn

from fastloaa import AST, adapt
from fastloaa.export import merge
from fastloaa.export.graph import Inference
from fastloaa.export.graph_blocks import GraphAttention
from fastloaa.export.onnx import metadata_of, write_graph
from fastloaa.export.translate import translate
from helpers.small import small_ast, small_vit, wake_adapters

traced: list[int] = []
"""The blocks whose code ran, by their ids."""


class Block(nn.Module):
    """A residual block, of which the tests make others."""

    def __init__(self, width: int = 12, activation: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.inner, self.outer, self.activation = nn.Linear(6, width), nn.Linear(width, 6, bias=False), activation
        self.register_buffer("scale", torch.tensor([0.5]), persistent=False)
        self.drop, self.norm = nn.Identity(), nn.LayerNorm(6)

    def forward(self, x: Tensor, shift: Tensor | None = None, factor: float = 1.0) -> Tensor:
        traced.append(id(self))
        x = x + self.drop(self.outer(self.activation(self.inner(self.norm(x))))) * self.scale * factor
        return x if shift is None else x + shift.sin()


class Narrowing(Block):
    def forward(self, x: Tensor, shift: Tensor | None = None, factor: float = 1.0) -> Tensor:
        return super().forward(x)[:, 1:]


class Model(nn.Module):
    """[batch, 5, 6] through blocks."""

    def __init__(self, *blocks: Block) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)
        self.shifts = nn.Parameter(torch.randn(len(blocks), 6))
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class WithShifts(Model):
    """A tensor of its own for each block."""

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x, shift=self.shifts[number])
        return self.head(x)


class WithOneShift(Model):
    """A tensor for all."""

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shifts.sum(0) * x.mean()
        for block in self.blocks:
            x = block(x, shift)
        return self.head(x)


class WithFactors(Model):
    """A number of its own for each block."""

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x, factor=1.0 + number)
        return self.head(x)


class Twice(Model):
    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.blocks, *self.blocks):
            x = block(x)
        return self.head(x)


class Inquisitive(Model):
    """Looks into its blocks."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * sum(block.inner.out_features for block in self.blocks)


class Choosy(Model):
    """Does without what its blocks have not."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) * (2 if hasattr(block, "norm") else 1) + getattr(block, "extra", 0)
        return self.head(x)


class Nosy(Model):
    """Reads a block's weight itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ self.blocks[0].outer.weight


def other_buffer() -> Model:
    model = Model(*(Block() for _ in range(4)))
    model.blocks[2].scale = torch.tensor([0.25])
    return model


def hooked() -> Model:
    model = Model(*(Block() for _ in range(4)))
    model.blocks[2].register_forward_hook(lambda block, args, out: 2 * out)
    return model


def tied_across() -> Model:
    model = Model(*(Block() for _ in range(4)))
    model.blocks[2].inner.weight = model.blocks[1].inner.weight
    return model


def tied_to_the_first() -> Model:
    model = Model(*(Block() for _ in range(4)))
    model.blocks[3].outer.weight = model.blocks[0].outer.weight
    return model


def tied_within() -> Model:
    model = Model(*(Block(6) for _ in range(4)))
    model.blocks[2].outer.weight = model.blocks[2].inner.weight
    return model


def dropping() -> Model:
    model = Model(*(Block() for _ in range(4)))
    for number in (1, 2, 3):
        model.blocks[number].drop = DropPath(0.1 * number)
    return model


def dropping_in_its_own_way() -> Model:
    """What is no part of the class, in a module whose settings do not matter."""
    model = Model(*(Block() for _ in range(4)))
    for block in model.blocks:
        block.drop = nn.Dropout(0.1)
    model.blocks[2].drop.forward = lambda x: 3 * x
    return model


def not_compared() -> Model:
    """Buffers of a kind that PyTorch cannot compare."""
    model = Model(*(Block() for _ in range(3)))
    for block in model.blocks:
        block.register_buffer("pattern", torch.eye(3).to_sparse(), persistent=False)
    return model


def one_block() -> Model:
    block = Block()
    return Model(block, block, block)


MODELS: dict[str, tuple[Callable[[], Model], int | None]] = {
    # how many blocks are translated, None where that is not the subject but that nothing is lost
    "all alike": (lambda: Model(*(Block() for _ in range(5))), 1),
    "another first": (lambda: Model(Block(activation=torch.tanh), *(Block() for _ in range(3))), 2),
    "another width in the middle": (lambda: Model(Block(), Block(), Block(7), Block(), Block(7)), 2),
    "another buffer": (other_buffer, 2),
    "a hook": (hooked, 2),
    "DropPath of several rates": (dropping, 1),
    "a dropout of which the forward was replaced": (dropping_in_its_own_way, 2),
    "sparse buffers": (not_compared, 3),
    "a tensor for each": (lambda: WithShifts(*(Block() for _ in range(4))), 1),
    "a tensor for all": (lambda: WithOneShift(*(Block() for _ in range(4))), 1),
    "a weight of two copies": (tied_across, 1),
    "a weight of the first and a copy": (tied_to_the_first, 1),
    "one weight twice in a block": (tied_within, 2),
    "a number for each": (lambda: WithFactors(*(Block() for _ in range(4))), None),
    "one block": (one_block, None),
    "each twice": (lambda: Twice(*(Block() for _ in range(3))), None),
    "another shape": (lambda: Model(*(Narrowing() for _ in range(3))), None),
    "a model that looks into blocks": (lambda: Inquisitive(*(Block() for _ in range(3))), None),
    "a model that asks what blocks have": (lambda: Choosy(*(Block() for _ in range(3))), None),
    "a model that reads a weight": (lambda: Nosy(*(Block() for _ in range(3))), 1),
}


@pytest.mark.parametrize(("make", "count"), MODELS.values(), ids=MODELS)
@torch.no_grad()
def test_answers_are_the_modules(make: Callable[[], Model], count: int | None) -> None:
    torch.manual_seed(0)
    model = make().eval()
    blocks, hooks = list(model.blocks), [len(block._forward_hooks) for block in model.blocks]
    traced.clear()
    shapes: Any = ({0: "batch"},)
    program = translate(model, model.blocks, (torch.zeros(2, 5, 6),), dynamic_shapes=shapes, opset_version=18)
    if count is not None:
        assert len(set(traced)) == count
    assert list(model.blocks) == blocks
    assert [len(block._forward_hooks) for block in model.blocks] == hooks
    proto = program.model_proto
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = torch.randn(batch, 5, 6)
        (answer,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(answer), model(x), atol=1e-5, rtol=1e-5)


def meaning(path: Path) -> dict[str, str]:
    """Each output of a file by what it is computed of: operators, attributes and the values of weights, no names."""
    graph = onnx.load(path).graph
    known = {entry.name: entry.name for entry in graph.input} | {"": ""}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        known[tensor.name] = hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
    for node in graph.node:
        attributes = sorted((entry.name, entry.SerializeToString()) for entry in node.attribute)
        text = repr((node.domain, node.op_type, [known[name] for name in node.input], attributes))
        for index, name in enumerate(node.output):
            known[name] = f"{index} {hashlib.sha256(text.encode()).hexdigest()}"
    return {entry.name: known[entry.name] for entry in graph.output}


def shallow_merged() -> nn.Module:
    model = adapt(small_ast(backbone_options={"depth": 5, "embed_dim": 48, "num_heads": 3}), bottleneck=4)
    wake_adapters(model)
    return merge(model)


def with_an_adapter_of_its_own() -> nn.Module:
    """Of four blocks the first has no adapter beside its FFN."""
    model = adapt(small_vit(depth=5), bottleneck=4, normed_input=False)
    wake_adapters(model)
    model.blocks[0].loaa_ffn = None
    return model


def rotary() -> nn.Module:
    """Positions are the same tensor for all blocks."""
    options = {"img_size": (64, 128), "in_chans": 1, "num_classes": 5, "embed_dim": 48, "num_heads": 3, "depth": 3}
    model = timm.create_model("vit_small_patch16_dinov3", **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


FILES = {
    "merged AST": (shallow_merged, 18, False, 2),
    "merged AST, float16": (shallow_merged, 23, True, 2),
    "adapters beside all blocks but one": (with_an_adapter_of_its_own, 17, False, 3),
    "rotary positions": (rotary, 20, False, 1),
}


@pytest.mark.parametrize(("make", "opset", "half", "count"), FILES.values(), ids=FILES)
def test_the_file_is_the_one_that_translating_every_block_gives(
    make: Callable[[], nn.Module],
    opset: int,
    half: bool,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Operator for operator: runtimes fuse what they fused, and quantisation finds the products of each block."""
    torch.manual_seed(0)
    model = make()
    metadata = metadata_of(model, waveform=isinstance(model, AST), opset=opset)
    graph = Inference(model, waveform=isinstance(model, AST), half=half, opset=opset)
    called, forward = set(), GraphAttention.forward

    def counted(self: GraphAttention, *args: Any, **kwargs: Any) -> Tensor:
        called.add(id(self))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(GraphAttention, "forward", counted)
    write_graph(graph, metadata, tmp_path / "once.onnx")
    assert len(called) == count
    blocks = [module for module in graph.modules() if isinstance(module, GraphAttention)]
    for block in blocks:
        block.register_forward_hook(lambda *_: None)  # which might be anything
    called.clear()
    write_graph(graph, metadata, tmp_path / "all.onnx")
    assert len(called) == len(blocks) > count
    assert meaning(tmp_path / "once.onnx") == meaning(tmp_path / "all.onnx")
    once, every = (onnx.load(tmp_path / f"{name}.onnx").graph for name in ("once", "all"))
    assert sorted(node.op_type for node in once.node) == sorted(node.op_type for node in every.node)
    products = [[node.name.split("/")[0] for node in each.node if node.op_type == "MatMul"] for each in (once, every)]
    assert products[0] == products[1]
