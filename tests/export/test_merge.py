"""merge(): the outputs of the adapted model, exactly, without adapters."""

import copy
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import GluMlp, Mlp, SwiGLU
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fastloaa import AST, LoAA, TokenGrid, adapt, concat
from fastloaa.adapters.files import backbone_fingerprint
from fastloaa.adapters.widened import Between, WidenedAttention, WidenedMlp
from fastloaa.backbones import AdaptedBlock
from fastloaa.export import MergeError, load_merged, merge, merged_from, save_merged
from fastloaa.files import FileError, write_safetensors
from helpers.small import SMALL, small_ast, small_vit, wake_adapters

VIT_OPTIONS = ("init_values", "qk_norm", "mlp_layer", "scale_mlp_norm", "scale_attn_norm", "attn_layer")
KERNELS = [(1, 1), (1, 3), (3, 1), (1, 7), (5, 1), (3, 3)]
GRIDS = [(1, 1), (8, 64), (8, 25), (12, 101), (5, 7), (1, 9), (9, 1)]


class Tokens(nn.Module):
    """A transformer whose input is tokens on any grid: the blocks and nothing else."""

    def __init__(self, grid: TokenGrid, dim: int = 16, depth: int = 1, **options: object) -> None:
        super().__init__()
        self.grid = grid
        self.backbone = VisionTransformer(
            img_size=16,
            embed_dim=dim,
            depth=depth,
            num_heads=2,
            num_classes=0,
            **options,  # type: ignore[arg-type]
        )
        self.head = nn.Identity()

    def config(self) -> dict[str, object]:
        return {}

    def forward(self, tokens: Tensor) -> Tensor:
        return self.backbone.blocks(tokens)


def adapted(grid: TokenGrid, dtype: torch.dtype = torch.float64, depth: int = 1, **options: object) -> Tokens:
    """With random weights everywhere, adapters that count as much as their block, and scales that are not one."""
    torch.manual_seed(3)
    vit_options = {name: options.pop(name) for name in VIT_OPTIONS if name in options}
    model = adapt(Tokens(grid, depth=depth, **vit_options), **({"bottleneck": 5} | options)).to(dtype).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def relative_error(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def on_backend(model: nn.Module, backend: str) -> nn.Module:
    for module in model.modules():
        if isinstance(module, LoAA):
            module.backend = backend
    return model


def check_exact(model: Tokens, bound: float = 1e-12, batch: int = 2) -> nn.Module:
    """The merged model against Conv2d, with and without gradients: in place and out of place."""
    x = torch.randn(batch, model.grid.tokens, 16, dtype=next(model.parameters()).dtype)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = on_backend(model, "reference")(x)
    merged = merge(model)
    assert not any(isinstance(module, LoAA | AdaptedBlock) for module in merged.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        assert relative_error(merged(x), expected) < bound
    assert relative_error(merged(x.clone().requires_grad_()).detach(), expected) < bound
    other = merge(model)
    for tensor in (*other.parameters(), *other.buffers()):  # whatever becomes of them, they are its own
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return merged


@pytest.mark.parametrize("order", ["freq", "time"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("freq_time", GRIDS)
def test_exact_on_every_grid(freq_time: tuple[int, int], kernel: tuple[int, int], order: str) -> None:
    grid = TokenGrid(*freq_time, prefix_tokens=2, token_order=order)  # type: ignore[arg-type]
    check_exact(adapted(grid, attn=kernel, ffn=kernel), batch=1 if grid.tokens > 600 else 2)


@pytest.mark.parametrize("prefix", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kernels", [("time", "freq"), ("freq", None), (None, "time"), ("linear", "linear")])
def test_exact_with_every_prefix_and_site(kernels: tuple[str | None, str | None], prefix: int) -> None:
    check_exact(adapted(TokenGrid(4, 6, prefix), attn=kernels[0], ffn=kernels[1], depth=2))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("kernel", ["time", "linear"])
def test_folds_bias_scale_and_activation(kernel: str, activation: str) -> None:
    check_exact(
        adapted(TokenGrid(3, 5, 2), attn=kernel, ffn=kernel, bias=True, scale=0.37, activation=activation, dropout=0.5)
    )


def test_layer_scale_is_folded_and_applies_to_the_block_alone() -> None:
    merged = check_exact(adapted(TokenGrid(3, 5, 1), init_values=0.5, depth=2))
    assert all(isinstance(block.ls1, nn.Identity) for block in merged.backbone.blocks)


@pytest.mark.parametrize("kernels", [("time", "freq"), (None, "linear"), ("linear", None)])
@pytest.mark.parametrize(
    "options",
    [
        {"mlp_layer": SwiGLU},
        {"mlp_layer": SwiGLU, "scale_mlp_norm": True},
        {"mlp_layer": GluMlp},
        {"mlp_layer": partial(GluMlp, gate_last=False)},
        {"mlp_layer": GluMlp, "scale_mlp_norm": True},
        {"scale_mlp_norm": True, "scale_attn_norm": True},
        {"attn_layer": "diff"},
    ],
    ids=["SwiGLU", "normed SwiGLU", "GLU", "GLU, gate first", "normed GLU", "norms", "differential"],
)
def test_gates_norms_and_differences_stay(options: dict, kernels: tuple) -> None:
    """The adapter's columns go past them, also where its activation is the FFN's and it has but one tap."""
    common = {"attn": kernels[0], "ffn": kernels[1], "bias": True, "scale": 0.6, "init_values": 0.5}
    check_exact(adapted(TokenGrid(3, 5, 2), depth=2, **common, **options))


def test_query_and_key_norms_stay() -> None:
    check_exact(adapted(TokenGrid(3, 5, 1), qk_norm=True))


@given(
    st.integers(1, 12),
    st.integers(1, 20),
    st.integers(0, 4),
    st.sampled_from(KERNELS),
    st.sampled_from(["freq", "time"]),
    st.integers(1, 40),
)
@settings(max_examples=25, derandomize=True)
def test_exact_on_any_shape(freq: int, time: int, prefix: int, kernel: tuple[int, int], order: str, rank: int) -> None:
    grid = TokenGrid(freq, time, prefix, order)  # type: ignore[arg-type]
    check_exact(adapted(grid, attn=kernel, ffn=kernel, bottleneck=rank))


def test_float32() -> None:
    check_exact(adapted(TokenGrid(8, 25, 2), dtype=torch.float32, depth=2), bound=1e-5)


def test_empty_batch() -> None:
    merged = merge(adapted(TokenGrid(3, 4, 1)))
    with torch.no_grad():
        assert merged(torch.zeros(0, 13, 16, dtype=torch.float64)).shape == (0, 13, 16)


def test_gradients_flow_to_the_input_as_in_the_adapted_model() -> None:
    model = adapted(TokenGrid(3, 5, 2))
    x = torch.randn(2, 17, 16, dtype=torch.float64)
    expected, got = (
        torch.autograd.grad(m(leaf).square().sum(), leaf)[0]
        for m, leaf in (
            (on_backend(model, "reference"), x.clone().requires_grad_()),
            (merge(model), x.requires_grad_()),
        )
    )
    assert relative_error(got, expected) < 1e-12


def test_widths_are_padded_to_eight_with_zeros() -> None:
    block = merge(adapted(TokenGrid(3, 5, 2), attn="time", ffn="freq", bottleneck=5)).backbone.blocks[0]
    assert isinstance(block.attn, WidenedAttention)
    assert isinstance(block.mlp, WidenedMlp)
    assert block.attn.qkv.out_features == 3 * 16 + 16  # 3 taps * 5 rows, padded
    assert block.mlp.fc2.in_features == 64 + 16
    assert not block.mlp.fc1.weight[64 + 15 :].any()
    assert not block.mlp.fc2.weight[:, 64 + 15 :].any()


def test_a_linear_adapter_beside_the_ffn_leaves_stock_timm() -> None:
    model = small_vit()
    adapt(model, attn=None, ffn="linear", bottleneck=20)
    wake_adapters(model)
    merged = merge(model)
    assert all(type(block) is Block and type(block.mlp) is Mlp for block in merged.blocks)
    hidden = merged.blocks[0].mlp.fc1.out_features
    assert hidden == 4 * 48 + 24
    stock = timm.create_model(
        "vit_tiny_patch16_224", img_size=(64, 128), in_chans=1, num_classes=5, mlp_ratio=hidden / 48, **SMALL
    ).eval()
    stock.load_state_dict(merged.state_dict())
    x = torch.randn(2, 1, 64, 128)
    with torch.no_grad():
        assert relative_error(stock(x), model(x)) < 1e-5


@pytest.mark.parametrize("hidden", range(768 * 4 + 8, 768 * 4 + 1032, 8))
def test_timm_finds_the_width_from_the_ratio(hidden: int) -> None:
    assert int(768 * (hidden / 768)) == hidden


MODELS = {
    "AST": lambda: small_ast(),
    "ViT": lambda: small_vit(),
    "DeiT": lambda: small_vit("deit_tiny_distilled_patch16_224"),
    "registers": lambda: small_vit(reg_tokens=4),
    "LayerScale": lambda: small_vit(init_values=0.3),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_whole_models(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Merged, saved and loaded again: the adapted model's answers, and where they come from."""
    model = adapt(make(), bottleneck=4)
    wake_adapters(model)
    x = torch.randn(3, 64, 128) if isinstance(model, AST) else torch.randn(3, 1, 64, 128)
    merged = merge(model)
    assert type(merged) is type(model)
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    origin = merged_from(merged)
    assert origin is not None
    assert origin["adapt"]["bottleneck"] == 4
    assert origin["backbone"] == backbone_fingerprint(model)
    save_merged(merged, tmp_path / "merged.safetensors")
    loaded = load_merged(tmp_path / "merged.safetensors", None if isinstance(model, AST) else make())
    assert merged_from(loaded) == origin
    with torch.no_grad():
        expected = model(x)
        assert relative_error(merged(x), expected) < 1e-5
        torch.testing.assert_close(loaded(x), merged(x), rtol=0, atol=0)
    if isinstance(model, AST):
        assert loaded.config() == model.config()


@pytest.mark.parametrize("kernels", [(None, "linear"), ("time", None), ("linear", (3, 3))])
def test_round_trip_of_other_sites(kernels: tuple, tmp_path: Path) -> None:
    model = adapt(small_ast(), attn=kernels[0], ffn=kernels[1], bottleneck=4, bias=True)
    wake_adapters(model)
    merged = merge(model)
    save_merged(merged, tmp_path / "merged.safetensors")
    loaded = load_merged(tmp_path / "merged.safetensors")
    x = torch.randn(2, 64, 128)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), merged(x), rtol=0, atol=0)


def test_several_adapters_at_one_site() -> None:
    model = adapted(TokenGrid(4, 6, 2), attn="time", ffn="freq")
    other = adapted(TokenGrid(4, 6, 2), attn="freq", ffn="freq", bottleneck=3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter))
    block, more = model.backbone.blocks[0], other.backbone.blocks[0]
    parts = [block.loaa_attn, more.loaa_attn]
    x = torch.randn(2, 26, 16, dtype=torch.float64)
    apart = sum(weight * on_backend(part, "reference")(x) for weight, part in zip((0.5, -2), parts, strict=True))
    block.loaa_attn = concat(parts, weights=[0.5, -2])
    with torch.no_grad():
        assert relative_error(block.loaa_attn(x), apart) < 1e-12
    merged = check_exact(model)
    between = merged.backbone.blocks[0].attn.between
    assert len(between.taps) == 5  # a cross: the corners of the common 3 x 3 kernel are zero
    assert between.kernel is None


def test_between_knows_one_dimensional_kernels() -> None:
    def kernel(*taps: tuple[int, int]) -> tuple[int, int] | None:
        return Between(4, taps, "gelu", 3, 2, "freq").kernel

    assert kernel((0, 0)) == (1, 1)
    assert kernel((0, -1), (0, 0), (0, 1)) == (1, 3)
    assert kernel((-1, 0), (0, 0), (1, 0)) == (3, 1)
    assert kernel((0, 0), (0, 1)) is None
    assert kernel(*((f, t) for f in (-1, 0, 1) for t in (-1, 0, 1))) is None
    assert kernel((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)) is None


def test_refuses_what_it_cannot_merge() -> None:
    with pytest.raises(MergeError, match="no adapters"):
        merge(small_ast())
    with pytest.raises(MergeError, match="un-normed input"):
        merge(adapt(small_ast(), bottleneck=4, normed_input=False))
    model = adapt(small_ast(), bottleneck=4)
    model.backbone.blocks[1].loaa_ffn.double()
    with pytest.raises(MergeError, match=r"block 1 .* model\.float\(\)"):
        merge(model)
    model = adapt(small_vit(), bottleneck=4)
    model.blocks[1].mlp = nn.Sequential(model.blocks[1].mlp)
    with pytest.raises(MergeError, match=r"block 1 has a Sequential; .* FFNs whose Linears are known"):
        merge(model)
    with pytest.raises(TypeError):
        merge(nn.Linear(2, 2))


def test_refuses_other_files_and_models(tmp_path: Path) -> None:
    path = tmp_path / "merged.safetensors"
    write_safetensors(path, {}, {"kind": "adapter"})
    with pytest.raises(FileError, match="not a merged model"):
        load_merged(path)
    with pytest.raises(MergeError, match="not a merged one"):
        save_merged(small_ast(), path)
    with pytest.raises(ValueError, match=r"merged one, .* save_merged\(model, path\)"):
        merge(adapt(small_ast(), bottleneck=4)).save(path)
    save_merged(merge(adapt(small_vit(), bottleneck=4)), path)
    with pytest.raises(MergeError, match="pass a plain one"):
        load_merged(path)
    with pytest.raises(MergeError, match="does not fit"):
        load_merged(path, small_vit(depth=3))
    with pytest.raises(MergeError, match="does not fit"):
        load_merged(path, small_vit(embed_dim=96))


def test_un_normed_adapters_read_the_residual_stream() -> None:
    """What `merge` refuses is not what it merges: the option is real."""
    model = adapted(TokenGrid(3, 4, 1), normed_input=False)
    block = model.backbone.blocks[0]
    x = torch.randn(2, 13, 16, dtype=torch.float64)
    with torch.no_grad():
        middle = x + block.attn(block.norm1(x)) + block.loaa_attn(x)
        expected = middle + block.mlp(block.norm2(middle)) + block.loaa_ffn(middle)
        assert relative_error(block(x), expected) < 1e-12


def test_compiled_in_one_graph_that_keeps_the_pass_in_place() -> None:
    merged = merge(adapted(TokenGrid(3, 4, 1), dtype=torch.float32))
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    x = torch.randn(2, 13, 16)
    with torch.no_grad():
        compiled = torch.compile(merged, backend=backend, fullgraph=True)
        torch.testing.assert_close(compiled(x), merged(x))
    (graph,) = graphs
    ops = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert sum("widened_activation_" in op for op in ops) == 2
