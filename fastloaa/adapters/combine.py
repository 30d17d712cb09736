"""Several adapters as one: their exact sum, and the average of their weights."""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from fastloaa.adapters.files import adapter_state, describe_backbone
from fastloaa.adapters.loaa import LoAA
from fastloaa.adapters.record import adapt_config
from fastloaa.errors import FastloaaError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class CombineError(FastloaaError, ValueError):
    """Adapters that cannot be combined."""


def concat(adapters: Sequence[LoAA], weights: Sequence[float] | None = None) -> LoAA:
    """One adapter whose branch is exactly the weighted sum of the branches of several at the same site.

    Bottlenecks are laid side by side; weights and scales go into `up`. Unlike kernels get zero taps up to their common
    size, so (1, 3) and (3, 1) make a (3, 3) of which `merge` keeps five taps. The sum of whole models does not follow
    from that of their branches: an adapter's output changes what the blocks after it read.

    Args:
        adapters: one or more, of one dim, grid, token order, activation, dtype and device; bottlenecks, kernels,
            scales and biases may differ.
        weights: a factor for each; 1 by default.

    Returns:
        A new adapter with the sum of the bottlenecks, scale 1 and no dropout.

    Raises:
        CombineError: none given, another number of weights, or adapters that differ in more than is said above.

    Examples:
        >>> import torch
        >>> from fastloaa import LoAA, concat
        >>> time, freq = LoAA(16, 4, "time", freq_bins=2), LoAA(16, 4, "freq", freq_bins=2)
        >>> for adapter in (time, freq):
        ...     _ = torch.nn.init.normal_(adapter.up.weight)  # as if trained
        >>> x, both = torch.randn(1, 8, 16), concat([time, freq], [0.5, 2.0])
        >>> torch.testing.assert_close(both(x), 0.5 * time(x) + 2.0 * freq(x))
    """
    factors = _factors(adapters, weights)
    first = adapters[0]
    if not all(isinstance(adapter, LoAA) for adapter in adapters):
        raise CombineError("concat takes LoAA modules of one site; whole models are averaged (fastloaa.average)")
    for name in ("freq_bins", "prefix_tokens", "token_order", "activation"):
        _check_alike(name, [getattr(adapter, name) for adapter in adapters])
    for name in ("dtype", "device"):
        _check_alike(name, [getattr(adapter.down.weight, name) for adapter in adapters])
    _check_alike("dim", [adapter.down.in_channels for adapter in adapters])
    kernel = tuple(max(adapter.down.kernel_size[axis] for adapter in adapters) for axis in (0, 1))
    down_bias, up_bias = (any(getattr(a, side).bias is not None for a in adapters) for side in ("down", "up"))
    result = LoAA(
        first.down.in_channels,
        sum(adapter.down.out_channels for adapter in adapters),
        (kernel[0], kernel[1]),
        freq_bins=first.freq_bins,
        prefix_tokens=first.prefix_tokens,
        token_order=first.token_order,
        bias=down_bias or up_bias,
        activation=first.activation,
        backend=first.backend,
        device=first.down.weight.device,
        dtype=first.down.weight.dtype,
    )
    result.initialisation = None
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.zero_()
        row = 0
        for adapter, factor in zip(adapters, factors, strict=True):
            rows = slice(row, row + adapter.down.out_channels)
            (kf, kt), gain = adapter.down.kernel_size, factor * adapter.scale
            at_f = slice((kernel[0] - kf) // 2, (kernel[0] + kf) // 2)
            at_t = slice((kernel[1] - kt) // 2, (kernel[1] + kt) // 2)
            result.down.weight[rows, :, at_f, at_t] = adapter.down.weight
            result.up.weight[:, rows, at_f, at_t] = gain * adapter.up.weight
            if result.down.bias is not None and adapter.down.bias is not None:
                result.down.bias[rows] = adapter.down.bias
            if result.up.bias is not None and adapter.up.bias is not None:
                result.up.bias += gain * adapter.up.bias
            row = rows.stop
    return result


def average(
    models: Sequence[ModuleT], weights: Sequence[float] | None = None, *, check_initialisation: bool = True
) -> ModuleT:
    """A new model (or single adapter) with the weighted average of the adapters' and heads' weights.

    APPROXIMATE: the average of weights is not the average of outputs. It is close only where training has stayed in
    one basin of the loss, which takes a shared initialisation: runs that differ in learning rate, data order or number
    of epochs, not in their seed ("Model soups", Wortsman et al. 2022). For an exact sum of branches see `concat`.

    Args:
        models: adapted models on one backbone, or `LoAA` modules; left as they are. The result's frozen weights are
            those of the first.
        weights: a factor for each, normalised to a sum of one; equal by default.
        check_initialisation: refuse adapters of different, or unknown, initial weights.

    Raises:
        CombineError: none given, another number of weights or a sum that is not positive, models without adapters, of
            other shapes, on other backbones, or of different initialisations.

    Examples:
        >>> import copy
        >>> import torch
        >>> from fastloaa import LoAA, average
        >>> one = LoAA(16, 4, freq_bins=2)
        >>> other = copy.deepcopy(one)
        >>> with torch.no_grad():
        ...     _ = other.up.weight.add_(1.0)  # as if trained further
        >>> average([one, other], [3, 1]).up.weight.mean().item()
        0.25
    """
    factors = _factors(models, weights)
    total = sum(factors)
    if not total > 0:
        raise CombineError(f"the weights of an average have a positive sum, got {total}")
    states = []
    for model in models:
        if not isinstance(model, LoAA) and adapt_config(model) is None:
            raise CombineError("a model without adapters cannot be averaged; call adapt or load_adapter first")
        states.append(model.state_dict() if isinstance(model, LoAA) else adapter_state(model))
    _check_alike("shapes of the weights", [{name: tuple(t.shape) for name, t in state.items()} for state in states])
    adapters = [_adapters(model) for model in models]
    for name in ("scale", "activation", "token_order"):
        _check_alike(name, [[getattr(adapter, name) for adapter in column] for column in adapters])
    if not isinstance(models[0], LoAA):
        _check_alike("normed_input", [config.normed_input for model in models if (config := adapt_config(model))])
        told = [describe_backbone(model) for model in models]
        for name in told[0]:
            what = "the backbone's frozen weights" if name == "fingerprint" else f"the backbone's {name}"
            _check_alike(what, [each[name] for each in told], show=name != "fingerprint")
    if check_initialisation:
        starts = [[adapter.initialisation for adapter in column] for column in adapters]
        if any(start is None for column in starts for start in column):
            raise CombineError(
                "it is not known which weights an adapter started from, so an average may be meaningless; load it with "
                "load_adapter, or pass check_initialisation=False if you know"
            )
        _check_alike("initial weights", starts, show=False)
    mean = {}
    for name, tensor in states[0].items():
        parts = [factor / total * state[name].double() for factor, state in zip(factors, states, strict=True)]
        mean[name] = torch.stack(parts).sum(0).to(tensor.dtype)
    result = copy.deepcopy(models[0])
    result.load_state_dict(mean, strict=False)
    for averaged, adapter in zip(_adapters(result), adapters[0], strict=True):
        averaged.initialisation = adapter.initialisation
    return result


def _adapters(model: nn.Module) -> list[LoAA]:
    return [module for module in model.modules() if isinstance(module, LoAA)]


def _factors(modules: Sequence[nn.Module], weights: Sequence[float] | None) -> list[float]:
    if not isinstance(modules, list | tuple) or not all(isinstance(module, nn.Module) for module in modules):
        raise CombineError("expected a list of adapters or adapted models; load files first, by load_adapter")
    if not modules:
        raise CombineError("nothing to combine; give at least one adapter")
    if weights is not None and len(weights) != len(modules):
        raise CombineError(f"{len(weights)} weights were given for {len(modules)} adapters; give one for each")
    return [1.0] * len(modules) if weights is None else [float(weight) for weight in weights]


def _check_alike(what: str, values: Sequence[object], show: bool = True) -> None:
    for number, value in enumerate(values[1:], 2):
        if value != values[0]:
            given = f": {values[0]} and, in number {number}, {value}"[:200] if show else f" (number {number})"
            raise CombineError(f"the adapters differ in {what}{given}; combine adapters that agree in it")
