"""concat is exact; average refuses what would make it meaningless."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastloaa import AST, LoAA, adapt, average, concat, load_adapter, save_adapter
from fastloaa.adapters.combine import CombineError
from helpers.small import small_ast, wake_adapters


def adapter(kernel: object = "time", bottleneck: int = 3, seed: int = 0, **options: object) -> LoAA:
    torch.manual_seed(seed)
    arguments = {"freq_bins": 3, "prefix_tokens": 2, "dtype": torch.float64, "backend": "reference"} | options
    layer = LoAA(8, bottleneck, kernel, **arguments).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


X = torch.randn(2, 2 + 3 * 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "options",
    [
        [{}, {"bottleneck": 5}],
        [{"kernel": "time"}, {"kernel": "freq"}],
        [{"kernel": "linear"}, {"kernel": (1, 7)}, {"kernel": (3, 3)}],
        [{"scale": 0.5}, {"scale": -2.0, "bias": True}],
        [{"token_order": "time"}, {"token_order": "time", "kernel": "freq"}],
        [{"activation": "silu"}, {"activation": "silu"}],
    ],
)
def test_concat_is_the_exact_sum(options: list[dict]) -> None:
    adapters = [adapter(seed=number, **each) for number, each in enumerate(options)]
    weights = [0.7, -1.3, 2.0][: len(adapters)]
    before = [copy.deepcopy(each.state_dict()) for each in adapters]
    with torch.no_grad():
        expected = sum(weight * each(X) for weight, each in zip(weights, adapters, strict=True))
        got = concat(adapters, weights)(X)
        plain = concat(adapters)(X)
        assert isinstance(expected, Tensor)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(plain, sum(each(X) for each in adapters), rtol=1e-12, atol=1e-12)
    for each, state in zip(adapters, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in each.state_dict().items())


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"freq_bins": 5}, "freq_bins"),
        ({"prefix_tokens": 1}, "prefix_tokens"),
        ({"token_order": "time"}, "token_order"),
        ({"activation": "relu"}, "activation"),
        ({"dtype": torch.float32}, "dtype"),
    ],
)
def test_concat_refuses_unlike_adapters(other: dict, named: str) -> None:
    with pytest.raises(CombineError, match=f"differ in {named}"):
        concat([adapter(), adapter(**other)])


def test_counts_are_checked() -> None:
    for combine in (concat, average):
        with pytest.raises(CombineError, match="at least one"):
            combine([])
        with pytest.raises(CombineError, match="3 weights were given for 2"):
            combine([adapter(), adapter()], [1, 2, 3])
    with pytest.raises(CombineError, match="positive sum"):
        average([adapter(), adapter()], [1, -1])


def runs(*seeds: int) -> list[AST]:
    """Models of one backbone whose adapters started from the given seeds and were then changed, each differently."""
    torch.manual_seed(0)
    plain, models = small_ast(), []
    for number, seed in enumerate(seeds):
        torch.manual_seed(seed)
        model = adapt(copy.deepcopy(plain), bottleneck=4)
        wake_adapters(model)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.01 * (number + 1))
        models.append(model)
    return models


def test_average_of_models() -> None:
    models = runs(5, 5, 5)
    result = average(models, weights=[1, 1, 2])
    states = [model.state_dict() for model in models]
    for name, tensor in result.state_dict().items():
        expected = sum(w * s[name].double() for w, s in zip((0.25, 0.25, 0.5), states, strict=True))
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)
    # Averages can be averaged again, and leave what they are made of alone.
    average([result, models[0]])
    assert torch.equal(models[0].head[1].weight, states[0]["head.1.weight"])


def test_average_refuses_other_initialisations() -> None:
    with pytest.raises(CombineError, match="differ in initial weights"):
        average(runs(5, 6))
    average(runs(5, 6), check_initialisation=False)


def test_average_refuses_other_backbones_and_inputs() -> None:
    plain, other = small_ast(), small_ast()
    models = []
    for model, normed_input in ((plain, True), (copy.deepcopy(plain), False), (other, True)):
        torch.manual_seed(5)
        models.append(adapt(model, bottleneck=4, normed_input=normed_input))
    with pytest.raises(CombineError, match="differ in normed_input: True and, in number 2, False"):
        average(models[:2])
    with pytest.raises(CombineError, match="differ in the backbone's frozen weights"):
        average(models[::2])


def test_average_knows_what_adapter_files_started_from(tmp_path: Path) -> None:
    """Files keep the origin; a bare state dict does not have one."""
    models = runs(5, 5, 6)
    loaded = []
    for number, model in enumerate(models):
        save_adapter(model, tmp_path / f"{number}.safetensors")
        torch.manual_seed(0)
        loaded.append(load_adapter(small_ast(), tmp_path / f"{number}.safetensors"))
    average(loaded[:2])
    with pytest.raises(CombineError, match="differ in initial weights"):
        average(loaded)
    loaded[1].load_state_dict(models[1].state_dict())
    with pytest.raises(CombineError, match="not known"):
        average(loaded[:2])
    models[1].load_state_dict(small_ast().head.state_dict(prefix="head."), strict=False)  # of no adapter
    average(models[:2])


def test_average_refuses_unlike_shapes_and_models() -> None:
    with pytest.raises(CombineError, match="differ in shapes"):
        average([adapter(), adapter(bottleneck=4)], check_initialisation=False)
    with pytest.raises(CombineError, match="differ in scale"):
        average([adapter(), adapter(scale=2.0)], check_initialisation=False)
    with pytest.raises(CombineError, match="without adapters"):
        average([small_ast(), small_ast()])
    with pytest.raises(CombineError, match="without adapters"):
        average([nn.Linear(2, 2)])
