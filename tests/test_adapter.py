"""LoAA, the module: options, start, state dict, dropout."""

import copy
import math

import pytest
import torch
from torch import nn

from fastloaa import LoAA


def layer(**options: object) -> LoAA:
    """A small adapter with weights that matter."""
    made = LoAA(16, bottleneck=4, freq_bins=2, prefix_tokens=1, **options)  # type: ignore[arg-type]
    nn.init.normal_(made.up.weight, std=0.3)
    return made


@pytest.mark.parametrize(
    ("kernel", "size"), [("time", (1, 3)), ("freq", (3, 1)), ("linear", (1, 1)), ((3, 3), (3, 3)), ((1, 7), (1, 7))]
)
def test_kernel_names_and_weight_shapes(kernel: object, size: tuple[int, int]) -> None:
    made = LoAA(768, bottleneck=36, kernel=kernel, freq_bins=8, prefix_tokens=2)  # type: ignore[arg-type]
    assert made.down.weight.shape == (36, 768, *size)
    assert made.up.weight.shape == (768, 36, *size)
    assert set(made.state_dict()) == {"down.weight", "up.weight"}
    assert sum(p.numel() for p in made.parameters()) == 2 * 36 * 768 * math.prod(size)


def test_starts_as_the_identity_and_can_still_learn() -> None:
    made = LoAA(16, bottleneck=4, freq_bins=2, prefix_tokens=1)
    x, block_out, skip = (torch.randn(3, 11, 16) for _ in range(3))
    out = made(x, block_out, skip)
    assert torch.equal(out, block_out + skip)
    (out * torch.randn_like(out)).sum().backward()
    assert made.up.weight.grad is not None
    assert made.up.weight.grad.abs().min() > 0


def test_summands_are_added() -> None:
    made = layer()
    x, block_out, skip = (torch.randn(3, 11, 16) for _ in range(3))
    branch = made(x)
    torch.testing.assert_close(made(x, block_out), branch + block_out)
    torch.testing.assert_close(made(x, None, skip), branch + skip)
    torch.testing.assert_close(made(x, block_out, skip), branch + block_out + skip)


def test_time_steps_follow_from_the_token_count() -> None:
    made = layer(kernel="time")
    for steps in (1, 5, 30):
        assert made(torch.randn(2, 1 + 2 * steps, 16)).shape == (2, 1 + 2 * steps, 16)


def test_state_dict_of_plain_conv2d_loads_unchanged() -> None:
    class PlainLoAA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(16, 4, (1, 3), padding=(0, 1), bias=False)
            self.up = nn.Conv2d(4, 16, (1, 3), padding=(0, 1), bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, 10, 16] on a 2 x 5 grid
            image = x.transpose(1, 2).reshape(x.shape[0], 16, 2, 5)
            return self.up(nn.functional.gelu(self.down(image))).flatten(2).transpose(1, 2)

    plain = PlainLoAA()
    made = LoAA(16, bottleneck=4, kernel="time", freq_bins=2)
    assert str(made.load_state_dict(plain.state_dict())) == "<All keys matched successfully>"
    x = torch.randn(3, 10, 16)
    torch.testing.assert_close(made(x), plain(x))


def test_weights_and_their_gradients_have_flat_views() -> None:
    """As PyTorch's pruning and L-BFGS take them."""
    made = layer()
    made(torch.randn(3, 1 + 2 * 5, 16)).sum().backward()
    for module in (made, copy.deepcopy(made), copy.deepcopy(made).bfloat16()):
        for weight in (module.down.weight, module.up.weight):
            assert weight.view(-1).shape == (weight.numel(),)
    for weight in (made.down.weight, made.up.weight):
        assert weight.grad is not None
        assert weight.grad.view(-1).shape == (weight.numel(),)


def test_dropout_drops_in_training_alone_and_keeps_the_mean() -> None:
    x = torch.randn(2, 11, 16)
    plain = layer()
    dropping = layer(dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    assert not torch.equal(dropping(x), dropping(x))
    mean = torch.stack([dropping(x).detach() for _ in range(2000)]).mean(0)
    assert (mean - plain(x)).norm() / plain(x).norm() < 0.05
    torch.testing.assert_close(dropping.eval()(x), plain(x))


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_options_reach_the_operation(backend: str) -> None:
    made = layer(bias=True, scale=0.5, activation="relu", token_order="time", backend=backend, kernel="freq")
    nn.init.normal_(made.down.bias)
    nn.init.normal_(made.up.bias)
    x = torch.randn(1, 1 + 2 * 3, 16)
    image = x[:, 1:].reshape(1, 3, 2, 16).permute(0, 3, 2, 1)  # time-major: [B, T, F, d] -> [B, d, F, T]
    expected = 0.5 * made.up(made.down(image).relu()).permute(0, 3, 2, 1).reshape(1, 6, 16)
    torch.testing.assert_close(made(x)[:, 1:], expected)


def test_explain_says_which_and_why() -> None:
    assert str(layer().explain(torch.zeros(1, 11, 16))).startswith("torch: ")
    assert str(layer(backend="reference").explain(torch.zeros(1, 11, 16))) == "reference: asked for"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": (1, 2)}, r"kernel is .* odd sizes; got \(1, 2\)"),
        ({"kernel": (1, -1)}, r"got \(1, -1\)"),
        ({"kernel": "times"}, r"\"time\" = \(1, 3\).* got 'times'"),
        ({"bottleneck": 0}, r"bottleneck is a whole number, at least 1; got bottleneck=0"),
        ({"bottleneck": -3}, r"got bottleneck=-3"),
        ({"dropout": 1.0}, r"probability in \[0, 1\), got 1.0"),
        ({"activation": "swish"}, r"activation is one of gelu"),
        ({"backend": "cuda"}, r"backend is one of auto"),
        ({"freq_bins": 0}, r"freq_bins=0"),
        ({"prefix_tokens": -1}, r"at least 0; got -1"),
        ({"token_order": "row"}, r"token_order"),
    ],
)
def test_bad_options_say_what_is_expected(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        LoAA(16, **({"bottleneck": 4, "freq_bins": 2} | options))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_wrong_token_count() -> None:
    with pytest.raises(ValueError, match=r"12 tokens with prefix_tokens=1 leave 11 patches"):
        layer()(torch.zeros(1, 12, 16))
