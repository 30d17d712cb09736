"""The shipped transformer that has seen images: the file that its card describes, whose features tell shapes apart."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from timm import create_model
from torch import Tensor

from fastloaa import AST
from fastloaa.files import read_safetensors

WEIGHTS = next((Path(__file__).parents[2] / "examples" / "backbones").glob("*.safetensors"))
CARD = json.loads(WEIGHTS.with_suffix(".json").read_text())
SIZE = 128


def test_the_file_is_the_one_described() -> None:
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == CARD["sha256"]
    assert WEIGHTS.stat().st_size <= 6e6
    weights, _ = read_safetensors(WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert len(weights["head.weight"]) == len(CARD["classes"])


def ast(weights: Path | None) -> AST:
    """One that reads a square: a picture stands where the spectrogram would."""
    options = {"depth": CARD["options"]["depth"]}
    return AST(2, frames=SIZE, backbone=CARD["model"], backbone_options=options, weights=weights).eval()


def test_it_is_read_by_the_papers_rules() -> None:
    """Colours summed, the position embedding of 8 x 8 patches as it is: what it makes of grey images is the same."""
    weights, _ = read_safetensors(WEIGHTS)
    vit = create_model(CARD["model"], **CARD["options"]).eval()
    vit.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    grey = torch.randn(2, 1, SIZE, SIZE)
    with torch.no_grad():
        expected = vit.forward_features(grey.expand(-1, 3, -1, -1))[:, :2].mean(1)
        torch.testing.assert_close(ast(WEIGHTS).embed(grey[:, 0].mT), expected, rtol=1e-3, atol=1e-4)


SHAPES = ("disc", "square", "ring", "cross", "lying stripes", "standing stripes", "checks", "dots")


def drawn(shape: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """[SIZE, SIZE], about zero mean: a shape of random place, size, brightness and background, with some noise."""
    size, (down, right) = rng.uniform(18, 40), rng.uniform(40, SIZE - 40, 2)
    y, x = np.mgrid[:SIZE, :SIZE]
    y, x = (y - down) / size, (x - right) / size
    within = np.maximum(abs(x), abs(y)) < 1
    period = rng.uniform(0.3, 0.6)
    picture = {
        "disc": np.hypot(x, y) < 1,
        "square": within,
        "ring": abs(np.hypot(x, y) - 0.8) < 0.2,
        "cross": within & (np.minimum(abs(x), abs(y)) < 0.25),
        "lying stripes": within & (y % period < period / 2),
        "standing stripes": within & (x % period < period / 2),
        "checks": within & ((x % period < period / 2) ^ (y % period < period / 2)),
        "dots": within & (np.hypot(x % period - period / 2, y % period - period / 2) < period / 3),
    }[shape]
    contrast = rng.choice((-1, 1)) * rng.uniform(0.7, 2)
    return np.float32(contrast * picture + rng.uniform(-1, 1) + 0.2 * rng.standard_normal((SIZE, SIZE)))


@torch.no_grad()
def probe_accuracy(model: AST, pictures: Tensor, labels: Tensor) -> float:
    """Of a linear classifier on the frozen features, fitted by ridge regression to one half and tested on the other."""
    features = torch.cat([model.embed(batch) for batch in pictures.split(64)]).double()
    half = len(features) // 2
    mean, std = features[:half].mean(0), features[:half].std(0)
    x = torch.cat(((features - mean) / std, torch.ones(len(features), 1)), dim=1)
    targets = torch.nn.functional.one_hot(labels[:half]).double()
    gram = x[:half].mT @ x[:half] + 10 * torch.eye(x.shape[1])
    answers = (x[half:] @ torch.linalg.solve(gram, x[:half].mT @ targets)).argmax(1)
    return (answers == labels[half:]).double().mean().item()


def test_it_tells_drawn_shapes_apart() -> None:
    """Better by far than the same transformer with random weights, for two draws of those."""
    rng = np.random.default_rng(0)
    labels = torch.arange(192) % len(SHAPES)
    pictures = torch.from_numpy(np.stack([drawn(SHAPES[label], rng) for label in labels]))
    trained = probe_accuracy(ast(WEIGHTS), pictures, labels)
    torch.manual_seed(0)
    untrained = [probe_accuracy(ast(None), pictures, labels) for _ in range(2)]
    assert trained > max(untrained) + 0.1
