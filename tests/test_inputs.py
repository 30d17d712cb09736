"""What people have at hand: it works where it has one meaning, else one line says what was expected."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastloaa import (
    AST,
    LoAA,
    TokenGrid,
    adapt,
    average,
    concat,
    loaa,
    load_adapter,
    save_adapter,
    trainable_parameters,
)
from fastloaa.attention import attention_maps, token_attention
from helpers.small import SMALL, small_ast, small_vit, wake_adapters

LAYER = LoAA(16, 4, freq_bins=2, prefix_tokens=1)
MODEL = small_ast()
VIT = small_vit()
NUMBERS = np.random.default_rng(0).standard_normal((2, 7, 16))
CLIPS = np.random.default_rng(0).standard_normal((2, 64, 128))


@pytest.mark.parametrize(
    "given",
    [
        NUMBERS,
        NUMBERS.astype(np.float32),
        np.asfortranarray(NUMBERS),
        NUMBERS[:, ::-1][:, ::-1],
        NUMBERS[::-1][::-1],
        NUMBERS.tolist(),
        tuple(NUMBERS.tolist()),
        torch.from_numpy(NUMBERS).float(),
        torch.from_numpy(NUMBERS).float().requires_grad_(),
        np.lib.stride_tricks.as_strided(NUMBERS, NUMBERS.shape, NUMBERS.strides, writeable=False),
    ],
    ids=["float64", "float32", "Fortran", "turned", "flipped", "lists", "tuple", "tensor", "gradient", "read-only"],
)
def test_tokens_at_hand(given: Any) -> None:
    x = torch.from_numpy(NUMBERS).float()
    torch.testing.assert_close(LAYER(given), LAYER(x))
    torch.testing.assert_close(LAYER(given, given, given), LAYER(x, x, x))
    weights = (LAYER.down.weight, LAYER.up.weight)
    torch.testing.assert_close(loaa(given, *weights, freq_bins=2, prefix_tokens=1), LAYER(x))
    with_dropout = LoAA(16, 4, freq_bins=2, prefix_tokens=1, dropout=0.5)
    assert with_dropout(given).shape == x.shape


@pytest.mark.parametrize("given", [CLIPS, CLIPS.astype(np.float32), CLIPS.tolist(), torch.from_numpy(CLIPS).float()])
def test_spectrograms_at_hand(given: Any) -> None:
    x = torch.from_numpy(CLIPS).float()
    torch.testing.assert_close(MODEL(given), MODEL(x))
    torch.testing.assert_close(MODEL.embed(given), MODEL.embed(x))
    torch.testing.assert_close(attention_maps(MODEL, given), attention_maps(MODEL, x))
    torch.testing.assert_close(
        attention_maps(VIT, np.swapaxes(np.asarray(given), 1, 2)[:, None, :64, :].repeat(2, 3)),
        attention_maps(VIT, x.transpose(1, 2).unsqueeze(1)[:, :, :64, :].repeat_interleave(2, 3)),
    )
    maps = attention_maps(MODEL, x)
    torch.testing.assert_close(
        token_attention(maps.detach().numpy(), MODEL.grid, 1), token_attention(maps, MODEL.grid, 1)
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"attn": [1, 3]}, (1, 3)),
        ({"attn": np.array([1, 3])}, (1, 3)),
        ({"attn": torch.Size((1, 3))}, (1, 3)),
        ({"attn": (np.int64(1), np.int32(3))}, (1, 3)),
        ({"attn": "time", "bottleneck": np.int64(4)}, (1, 3)),
        ({"attn": "time", "scale": np.float32(0.5)}, (1, 3)),
        ({"attn": "time", "scale": torch.tensor(0.5)}, (1, 3)),
        ({"attn": "time", "dropout": np.float64(0.1), "bias": np.bool_(True)}, (1, 3)),
        ({"attn": "time", "bottleneck": torch.tensor(4)}, (1, 3)),
    ],
)
def test_settings_at_hand_reach_the_file(options: dict[str, Any], expected: tuple[int, int], tmp_path: Path) -> None:
    """numpy's numbers come from configuration files and sweeps; JSON does not take them."""
    model = adapt(small_ast(), **({"bottleneck": 4} | options))
    wake_adapters(model)
    save_adapter(model, str(tmp_path / "a.safetensors"))
    loaded = load_adapter(copy.deepcopy(MODEL), tmp_path / "a.safetensors", check_backbone=False)
    found = next(m for m in loaded.modules() if isinstance(m, LoAA))
    assert found.down.kernel_size == expected
    assert found.down.out_channels == 4


def test_sizes_at_hand() -> None:
    assert TokenGrid(np.int64(8), 4, np.int32(2)).tokens == 34
    for patch in (16, [16, 16], np.int64(16), (np.int64(16), 16), torch.Size((16, 16))):
        assert TokenGrid.from_spectrogram(128, 64, patch).rows_cols == (8, 4)
    model = small_ast(np.int64(5), labels=np.array(list("abcde")), patch=[16, 16], stride=[16, 16])
    assert model.labels == ("a", "b", "c", "d", "e")
    assert AST.from_config(model.config()).grid == model.grid


def tokens(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "2-D tokens": (lambda: LAYER(tokens(7, 16)), r"x is \[batch, tokens, dim\], got shape \(7, 16\); .*x\[None\]"),
    "4-D tokens": (lambda: LAYER(tokens(2, 16, 2, 3)), "flatten the grid into tokens first"),
    "1-D tokens": (lambda: LAYER(tokens(16)), r"x is \[batch, tokens, dim\]"),
    "channels first": (lambda: LAYER(tokens(2, 16, 7)), "x has 7 channels and the adapter 16"),
    "int16 tokens": (lambda: LAYER(tokens(2, 7, 16).short()), "floating point; got torch.int16"),
    "int16 numpy": (lambda: LAYER(NUMBERS.astype(np.int16)), "floating point; got torch.int16"),
    "whole numbers in lists": (lambda: LAYER([[[1, 2]]]), "floating point; got torch.int64"),
    "uneven lists": (lambda: LAYER([[1.0], [1.0, 2.0]]), "numbers that make no tensor"),
    "strings in lists": (lambda: LAYER([["a"]]), "numbers that make no tensor"),
    "a path as tokens": (lambda: LAYER("x.wav"), "a tensor or a numpy array; got str"),
    "None as tokens": (lambda: LAYER(None), "a tensor or a numpy array; got NoneType"),
    "a path as block_out": (lambda: LAYER(NUMBERS, Path("x.wav")), "block_out is .* got PosixPath"),
    "one skip for all": (lambda: LAYER(NUMBERS, skip=tokens(1, 7, 16)), r"skip has shape \(1, 7, 16\), expected"),
    "float64 tensor": (lambda: LAYER(torch.from_numpy(NUMBERS)), "x is torch.float64 and the adapter's weights are"),
    "transposed spectrogram": (lambda: MODEL(tokens(2, 128, 64)), r"swap its last axes: log_mel.transpose\(-2, -1\)"),
    "transposed, numpy": (lambda: MODEL(CLIPS.transpose(0, 2, 1)), "swap its last axes"),
    "one clip": (lambda: MODEL(tokens(64, 128)), r"a single clip is log_mel\[None\]"),
    "one channel": (lambda: MODEL(tokens(2, 1, 64, 128)), r"no axis of channels: log_mel.squeeze\(1\)"),
    "an image": (lambda: MODEL(tokens(2, 1, 128, 64)), "swap its last axes"),
    "a waveform": (lambda: MODEL(tokens(2, 16000)), r"model.front_end\(waveform\) makes it from waveforms"),
    "other frames": (lambda: MODEL(tokens(2, 100, 128)), r"\[batch, frames=64, mel_bins=128\], got \(2, 100, 128\)"),
    "int16 spectrogram": (lambda: MODEL(tokens(2, 64, 128).short()), "floating point; got torch.int16"),
    "a path for the model": (lambda: MODEL("clip.wav"), "log_mel is log-mel .* a numpy array; got str"),
    "adapt a name": (lambda: adapt("vit_base_patch16_224"), "expected a model, got str 'vit_base_patch16_224'; build"),
    "adapt a class": (lambda: adapt(AST), "expected a model, got the class AST; build it first"),
    "adapt None": (lambda: adapt(None), "expected a model, got NoneType"),
    "adapt a path": (lambda: adapt(Path("a.safetensors")), "expected a model, got PosixPath"),
    "kernel misspelt": (lambda: adapt(VIT, attn="Time"), r'kernel is "time" = .*; got \'Time\''),
    "kernel a number": (lambda: adapt(VIT, attn=3), r"a pair \(frequency, time\) of odd sizes; got 3"),
    "kernel of floats": (lambda: adapt(VIT, attn=(1.0, 3.0)), r"odd sizes; got \(1.0, 3.0\)"),
    "kernel of booleans": (lambda: adapt(VIT, attn=(True, 3)), r"odd sizes; got \(True, 3\)"),
    "kernel none": (lambda: adapt(VIT, attn="none"), "odd sizes; got 'none'"),
    "bottleneck in quotes": (lambda: adapt(VIT, bottleneck="36"), "a whole number, at least 1; got bottleneck='36'"),
    "half a bottleneck": (lambda: adapt(VIT, bottleneck=36.5), "a whole number, at least 1; got bottleneck=36.5"),
    "no bottleneck": (lambda: adapt(VIT, bottleneck=None), "a whole number, at least 1; got bottleneck=None"),
    "scale in quotes": (lambda: adapt(VIT, scale="2"), "scale is a finite number; got '2'"),
    "scale not a number": (lambda: adapt(VIT, scale=float("nan")), "scale is a finite number; got nan"),
    "many scales": (lambda: adapt(VIT, scale=[1.0, 2.0]), r"scale is a finite number; got \[1.0, 2.0\]"),
    "a module as activation": (lambda: adapt(VIT, activation=torch.nn.GELU()), "activation is one of .*; got GELU"),
    "a list as activation": (lambda: adapt(VIT, activation=["gelu"]), r"activation is one of .*; got \['gelu'\]"),
    "a device as backend": (lambda: adapt(VIT, backend="cuda"), "backend is one of auto, .*; got 'cuda'"),
    "rows in quotes": (lambda: TokenGrid("8", 4), "freq_bins is a whole number; got '8'"),
    "half rows": (lambda: LoAA(16, 4, freq_bins=8.0), "freq_bins is a whole number; got 8.0"),
    "patch in quotes": (lambda: TokenGrid.from_spectrogram(128, 64, "16"), "a pair .* of them; got '16'"),
    "one size in a pair": (lambda: TokenGrid.from_spectrogram(128, 64, (16,)), r"a pair .* of them; got \(16,\)"),
    "swapped arguments": (lambda: load_adapter("a.safetensors", MODEL), "expected a model, got str 'a.safetensors'"),
    "saved to a model": (lambda: save_adapter("a.safetensors", MODEL), "expected a model, got str"),
    "saved nowhere": (lambda: save_adapter(MODEL, None), "expected the path of a file, got NoneType"),
    "saved to a file object": (lambda: load_adapter(MODEL, open(__file__)), "the path of a file, got TextIOWrapper"),  # noqa: PTH123, SIM115
    "parameters of a name": (lambda: trainable_parameters("AST"), "expected a model, got str 'AST'"),
    "classes by name": (lambda: AST(["dog", "cat"]), "num_classes is a whole number, at least 1; got"),
    "labels in one string": (lambda: AST(2, labels="ab"), "labels are the names of the classes, a list; got 'ab'"),
    "labels by number": (lambda: AST(2, labels={0: "a", 1: "b"}), r"the names of the classes, a list; got \{0: 'a'"),
    "a model as backbone": (lambda: AST(2, backbone=VIT), "a timm VisionTransformer or Eva, got VisionT"),
    "pretrained=True": (lambda: AST(2, weights=True), 'weights is "timm", the path of a file, or None; got True'),
    "half frames": (lambda: AST(2, frames=512.0), "frames is a whole number, at least 1; got frames=512.0"),
    "average of two arguments": (lambda: average(LAYER, LAYER), "expected a list of adapters or adapted models"),
    "average of files": (lambda: average(["a.safetensors", "b.safetensors"]), "load files first, by load_adapter"),
    "concat of models": (lambda: concat([MODEL]), "concat takes LoAA modules of one site"),
    "maps of the last layer": (lambda: attention_maps(MODEL, CLIPS, "last"), "layer 'last' does not exist"),
    "maps of a file": (lambda: attention_maps(MODEL, "clip.wav"), "log_mel is .* got str"),
    "maps at half a step": (lambda: token_attention(tokens(1, 3, 34, 34), MODEL.grid, 0.5), "time step 0.5 does not"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_one_line_says_what_was_expected(name: str) -> None:
    call, message = REFUSALS[name]
    with pytest.raises((TypeError, ValueError), match=message) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_what_was_refused_is_left_as_it_was() -> None:
    assert not any(isinstance(module, LoAA) for module in VIT.modules())
    assert SMALL["depth"] == len(VIT.blocks)
