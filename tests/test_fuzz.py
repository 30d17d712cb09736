"""Damaged files of every kind that the library reads: only its own errors come out, in bounded memory.

Bytes are changed, cut, doubled and replaced at random places, by seeds; the answer to a file that is still good does
not matter.
"""

import copy
import json
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from fastloaa import AST, FastloaaError, adapt, load_adapter, save_adapter
from fastloaa.files import FileError, read_json, read_safetensors, understanding
from fastloaa.training import Recipe
from fastloaa.training.checkpoint import Checkpoint
from fastloaa.training.metrics import read_metrics
from fastloaa.training.recipes import read_recipe, recipe_names, recipe_text
from fastloaa.training.sweep_table import Outcome, Trial
from helpers.checkpoints import CHECKPOINT
from helpers.small import SMALL, small_ast

MOST_MEMORY = 100e6  # of Python's; the files have some kilobytes


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to four of the things that happen to files."""
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 2, 8, 64))
        if rng.random() < 0.5:  # in the header, where most can go wrong
            place = min(place, rng.randrange(600))
        middle = {
            "flip": bytes(byte ^ (1 << rng.randrange(8)) for byte in content[place : place + length]),
            "drop": b"",
            "double": content[place : place + length] * 2,
            "noise": rng.randbytes(length),
            "digits": b"9" * length,
            "brackets": rng.choice((b"[", b"{", b"}", b'"', b"null", b"-", b"NaN", b"1e999", b"\0")),
        }[rng.choice(("flip", "drop", "double", "noise", "digits", "brackets"))]
        content = content[:place] + middle + content[place + length :]
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content) + 1)]
    return content


@pytest.fixture(scope="module")
def backbone() -> AST:
    return small_ast(backbone_options=SMALL | {"depth": 1})


def read_outcome(path: Path) -> None:
    with understanding(path, "the result of a run"):
        Outcome.of(Trial("a", None, 0, Recipe(data="x"), path), read_json(path), [])


RESULT = {
    "test": {"accuracy": 0.5, "mAP": 0.6, "clips": 40},
    "trainable_parameters": 399,
    "seconds": 1.5,
    "chosen_epoch": 2,
    "chosen_by": "last epoch",
}
WRITERS: dict[str, Callable[[Path, AST], object]] = {
    "adapter.safetensors": lambda path, model: save_adapter(adapt(model, bottleneck=2), path),
    "checkpoint.safetensors": lambda path, _: CHECKPOINT.save(path),
    "recipe.yaml": lambda path, _: path.write_text("data: x\n" + recipe_text(recipe_names()[0])),
    "result.json": lambda path, _: path.write_text(json.dumps(RESULT)),
    "metrics.jsonl": lambda path, _: path.write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": null}\n'),
}
READERS: dict[str, Callable[[Path, AST], object]] = {
    "adapter.safetensors": lambda path, model: load_adapter(model, path),
    "checkpoint.safetensors": lambda path, _: Checkpoint.load(path),
    "recipe.yaml": lambda path, _: Recipe.from_dict(read_recipe(path)),
    "result.json": lambda path, _: read_outcome(path),
    "metrics.jsonl": lambda path, _: read_metrics(path),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, backbone: AST, tmp_path: Path) -> None:
    path, rng, outcomes = tmp_path / name, random.Random(name), {True: 0, False: 0}
    WRITERS[name](path, copy.deepcopy(backbone))
    content = path.read_bytes()
    READERS[name](path, copy.deepcopy(backbone))  # it is good before
    for _ in range(60 if name.startswith("adapter") else 200):
        path.write_bytes(damaged(content, rng))
        model = copy.deepcopy(backbone)
        tracemalloc.start()
        try:
            READERS[name](path, model)
        except FastloaaError as error:  # any other is a traceback for the user
            outcomes[len(str(error).splitlines()) == 1] += 1
        finally:
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert most < MOST_MEMORY
    assert outcomes[False] == 0  # every message is a line
    assert outcomes[True] > 20  # and much was refused


def header(text: str, claimed: int | None = None) -> bytes:
    """A safetensors file's beginning: the length of the JSON, which may be a lie, and the JSON."""
    return struct.pack("<Q", len(text) if claimed is None else claimed % (1 << 64)) + text.encode()


def tensor(shape: list[int], end: int, kind: str = "F32") -> str:
    return json.dumps({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, end]}})


ODD = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "a header of 2**60 bytes": header("{}", 1 << 60),
    "a header of 2**63 bytes": header("{}", 1 << 63),
    "a header of 2**64 - 1 bytes": header("{}", -1),
    "a header of 99 MB that is not there": header("{}", 99_000_000),
    "a tensor of 2**60 bytes": header(tensor([1 << 58], 1 << 60)),
    "a shape whose product overflows": header(tensor([1 << 33, 1 << 33], 8)) + b"\0" * 8,
    "a shape that its bytes do not fill": header(tensor([1000], 8)) + b"\0" * 8,
    "bytes from behind the end": header(tensor([2], 1 << 40)),
    "a negative size": header(tensor([-1], 4)) + b"\0" * 4,
    "a type that PyTorch does not know": header(tensor([2], 8, "F31")) + b"\0" * 8,
    "deep JSON": header('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "JSON of another kind": header("[1, 2, 3]"),
    "metadata that are no text": header('{"__metadata__": {"fastloaa": 5}}'),
    "metadata that are no JSON": header(json.dumps({"__metadata__": {"fastloaa": "{"}})),
    "metadata that are a list": header(json.dumps({"__metadata__": {"fastloaa": "[]"}})),
    "metadata that are deep": header(json.dumps({"__metadata__": {"fastloaa": "[" * 100_000 + "]" * 100_000}})),
    "a number of many digits": header(json.dumps({"__metadata__": {"fastloaa": '{"a": ' + "9" * 9999 + "}"}})),
    "not UTF-8": struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe",
    "a pickle": b"\x80\x04\x95\x0f\0\0\0\0\0\0\0\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
}


@pytest.mark.parametrize("name", ODD)
def test_files_that_lie_about_their_size_or_kind(name: str, backbone: AST, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(ODD[name])
    tracemalloc.start()
    try:
        for read in (read_safetensors, Checkpoint.load, lambda path: load_adapter(backbone, path)):
            with pytest.raises(FileError, match=r"a\.safetensors"):
                read(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MOST_MEMORY


def test_an_adapter_file_cannot_ask_for_memory_that_it_does_not_fill(backbone: AST, tmp_path: Path) -> None:
    save_adapter(adapt(copy.deepcopy(backbone), bottleneck=2), tmp_path / "a.safetensors")
    tensors, metadata = read_safetensors(tmp_path / "a.safetensors")
    for bottleneck in (3, 10**9, 10**30, -2, 2.0, "2", None, [2]):
        metadata["adapt"]["bottleneck"] = bottleneck
        save_file(tensors, tmp_path / "b.safetensors", {"fastloaa": json.dumps(metadata)})
        model = copy.deepcopy(backbone)
        if bottleneck == 2.0:
            continue
        with pytest.raises(FileError, match=r"b\.safetensors: damaged"):
            load_adapter(model, tmp_path / "b.safetensors")
        assert model.state_dict().keys() == backbone.state_dict().keys()  # as it was
