"""Which of timm's models take adapters: writes the table in docs/backbones.md.

    python bench/backbones.py            # prints it
    python bench/backbones.py --write    # into the page

Names that differ in width, depth and size alone are one kind, tried once, small: two blocks, 96 wide, one channel, a
grid of 4 x 8. Weights are random, adapters too.
"""

import argparse
import copy
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from timm.models import Eva, VisionTransformer, model_entrypoint
from torch import Tensor, nn

from fastloaa import LoAA, adapt, load_adapter, save_adapter
from fastloaa.errors import FastloaaError
from fastloaa.export import load_merged, merge, save_merged, to_onnx

PAGE = Path(__file__).parent.parent / "docs" / "backbones.md"
SMALL: dict[str, Any] = {
    "depth": 2,
    "embed_dim": 96,
    "num_heads": 6,
    "num_classes": 5,
    "img_size": (64, 128),
    "patch_size": 16,
    "in_chans": 1,
}
OTHERS: tuple[dict[str, Any], ...] = ({}, {"attn_pool_num_heads": 6}, {"num_kv_heads": (6, 3)})
MODULES = ("vision_transformer", "deit", "eva")  # of timm.models


@dataclass(frozen=True)
class Row:
    """What came of adapting a model; differences are the largest in its logits, relative to the largest logit.

    Args:
        refused: why it takes no adapters, "" if it does.
        start: adapted and not trained, from the plain model.
        gradients: every trainable parameter has one that is not zero.
        loaded: adapters saved and loaded into a fresh copy, from those that were saved.
        not_merged: why it does not merge, "" if it does.
        merged, merged_double: merged, saved and loaded, in float32 and float64, from the adapted model.
        onnx: a file of the merged model in onnxruntime, from the adapted model in PyTorch, absolute; None: not tried.
    """

    refused: str = ""
    start: float = 0.0
    gradients: bool = False
    loaded: float = 0.0
    not_merged: str = ""
    merged: float = 0.0
    merged_double: float = 0.0
    onnx: float | None = None


def small_model(name: str, **options: Any) -> Any:
    """A timm model of two narrow blocks; raises timm's own errors."""
    errors = []
    for others in OTHERS:
        try:
            return timm.create_model(name, **SMALL | others | options).eval()
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            errors.append(error)
    raise errors[0]


def kinds() -> dict[str, list[str]]:
    """The names of timm's VisionTransformer and Eva models by the first of each kind."""
    found: dict[Any, list[str]] = {}
    for name in timm.list_models():
        if model_entrypoint(name).__module__.removeprefix("timm.models.") not in MODULES:
            continue
        model = small_model(name)
        if isinstance(model, VisionTransformer | Eva):
            settings = (model.global_pool, model.dynamic_img_size, model.no_embed_class, model.num_prefix_tokens)
            kind = (re.sub(r"[\d.]+(e-\d+)?", "", repr(model)), *dict(model.named_parameters()), *settings)
            found.setdefault(kind, []).append(name)
    return {names[0]: names for names in found.values()}


def try_out(name: str, onnx: bool = True, **options: Any) -> Row:
    """Adapt a small model of that name and do with it what can be done."""
    torch.manual_seed(0)
    plain = random_weights(small_model(name, **options))
    fresh, x = copy.deepcopy(plain), torch.randn(2, *SMALL["img_size"]).unsqueeze(1)
    try:
        model = adapt(copy.deepcopy(plain), bottleneck=4)
    except FastloaaError as error:
        return Row(refused=str(error))
    with torch.no_grad():
        start = difference(model(x), plain(x))
    wake(model)
    gradients = has_gradients(model, x)
    with TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "file"
        save_adapter(model, file)
        loaded = difference(load_adapter(fresh, file)(x), model(x))
        done = {"start": start, "gradients": gradients, "loaded": loaded}
        try:
            save_merged(merge(model), file)
        except FastloaaError as error:
            return Row(not_merged=str(error), **done)
        merged = difference(load_merged(file, copy.deepcopy(plain))(x), model(x))
        double = copy.deepcopy(model).double()
        merged_double = difference(merge(double)(x.double()), double(x.double()))
        report = to_onnx(model, file, waveform=False) if onnx else None
        return Row(merged=merged, merged_double=merged_double, onnx=report and report.difference, **done)


def random_weights(model: nn.Module) -> nn.Module:
    """Biases, norms, LayerScale and heads away from where they begin, so that a test can see them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def wake(model: nn.Module) -> None:
    """Give the adapters' up-projections weights."""
    for module in model.modules():
        if isinstance(module, LoAA):
            nn.init.normal_(module.up.weight, std=0.2)


def has_gradients(model: nn.Module, x: Tensor) -> bool:
    """Whether every trainable parameter gets a gradient, and no other."""
    model.zero_grad()
    (model(x) * torch.randn(5)).sum().backward()
    return all(
        parameter.grad is not None and bool(parameter.grad.any()) if parameter.requires_grad else parameter.grad is None
        for parameter in model.parameters()
    )


def difference(got: Tensor, wanted: Tensor) -> float:
    """The largest, relative to the largest number that is wanted."""
    return float((got - wanted).abs().max() / wanted.abs().max())


def line(names: list[str], row: Row) -> str:
    """A line of the table."""
    name, *others = (f"`{name}`" for name in names)
    return f"| {' | '.join([name, ', '.join(others), *cells(row)])} |"


def cells(row: Row) -> list[str]:
    """What the table says of a kind: adapts, starts equal, trains and loads, merges, ONNX."""
    if row.refused:
        return [f"no: {reason(row.refused)}", "", "", "", ""]
    starts, trains = yes(row.start <= 1e-5), yes(row.gradients and row.loaded <= 1e-6)
    if row.not_merged:
        return ["yes", starts, trains, f"no: {reason(row.not_merged)}", ""]
    merges = yes(row.merged <= 1e-5 and row.merged_double <= 1e-12)
    return ["yes", starts, trains, merges, "" if row.onnx is None else yes(row.onnx <= 1e-4)]


def yes(right: bool) -> str:
    return "yes" if right else "**wrong**"


def reason(message: str) -> str:
    """The first part of an error about block 0."""
    return re.split(r"[;:(]", message)[0].strip().removeprefix("block 0 is a ")


def written(lines: list[str]) -> None:
    """Put lines in place of the table's of the page."""
    page = PAGE.read_text(encoding="utf-8")
    head, table, rest = re.split(r"(?<=\n)(\|[^\n]*\n\|[-| ]+\n)(?:\|[^\n]*\n)*", page, maxsplit=1)
    PAGE.write_text(head + table + "".join(f"{line}\n" for line in lines) + rest, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into docs/backbones.md")
    parser.add_argument("names", nargs="*", help="models to try, instead of all")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = []
    for name, names in ({name: [name] for name in arguments.names} or kinds()).items():
        lines.append(line(names, try_out(name)))
        print(lines[-1], flush=True)
    if arguments.write:
        written(lines)


if __name__ == "__main__":
    main()
