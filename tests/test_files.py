"""Files that are whole or not there, whatever the disk does."""

import csv
import errno
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from matplotlib.figure import Figure
from onnx.helper import make_graph, make_model, make_tensor
from safetensors.torch import save_file

from fastloaa import adapt, save_adapter
from fastloaa.errors import FastloaaError
from fastloaa.export import Classifier, merge, save_merged, to_onnx, write_bundle
from fastloaa.export.graph import Inference
from fastloaa.export.onnx import metadata_of, write_graph
from fastloaa.export.quantise import quantise
from fastloaa.files import (
    FileError,
    WriteError,
    making_folder,
    read_safetensors,
    replacing,
    write_json,
    write_safetensors,
    writing,
)
from fastloaa.training import Recipe, train
from fastloaa.training.metrics import MetricsFile
from fastloaa.training.plots import plot_confusion
from fastloaa.training.trackers import CSVTracker
from helpers.full_disk import files_of_at_most
from helpers.small import SMALL, small_ast


def write_png(path: Path) -> None:
    figure = Figure()
    figure.subplots().imshow(np.random.default_rng(0).random((200, 200)))
    with replacing(path) as temporary:
        figure.savefig(temporary)


def write_wav(path: Path) -> None:
    with replacing(path) as temporary:
        soundfile.write(temporary, np.zeros(9000), 16000)


def write_flac(path: Path) -> None:
    with replacing(path) as temporary:
        soundfile.write(temporary, np.random.default_rng(0).random(9000), 16000)


def write_onnx(path: Path) -> None:
    weights = make_tensor("weights", onnx.TensorProto.FLOAT, [9000], np.zeros(9000, np.float32))
    with replacing(path) as temporary:
        onnx.save(make_model(make_graph([], "empty", [], [], [weights])), temporary)


def write_csv(path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([["epoch"] * 100] * 100)


def write_adapter(path: Path) -> None:
    save_adapter(adapt(small_ast(), attn="time"), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.json": lambda path: write_json(path, list(range(9000))),
    "tensors.safetensors": lambda path: write_safetensors(path, {"a": torch.zeros(9000)}, {}),
    "adapter.safetensors": write_adapter,
    "model.safetensors": lambda path: small_ast().save(path),
    "recipe.yaml": lambda path: Recipe(data="sounds" * 9000).save(path),
    "a.png": write_png,
    "a.svg": write_png,
    "confusion.pdf": lambda path: plot_confusion(np.eye(9, dtype=int).tolist(), list("abcdefghi"), path),
    "a.wav": write_wav,
    "a.flac": write_flac,
    "a.onnx": write_onnx,
    "a.csv": write_csv,
    "metrics.csv": lambda path: CSVTracker(path).epoch([{"epoch": 1, "name": "x" * 9000}]),
}


@pytest.mark.parametrize("old", [None, b"what was there"], ids=["new", "old"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(name: str, old: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / name
    if old is not None:
        path.write_bytes(old)
    with files_of_at_most(1000), pytest.raises(WriteError) as caught:
        WRITERS[name](path)
    assert str(caught.value).startswith(f"{path}: cannot be written: ")
    assert str(caught.value).endswith("; free some space there, or give another place")
    assert list(tmp_path.iterdir()) == ([] if old is None else [path])
    assert old is None or path.read_bytes() == old
    WRITERS[name](path)  # with space it goes well
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_appended_to_is_named(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", epochs=0)
    metrics.append({"epoch": 1})
    with files_of_at_most(1000), pytest.raises(WriteError, match=r"metrics\.jsonl: cannot be written"):
        metrics.append({"epoch": 2, "note": "x" * 2000})
    assert MetricsFile(tmp_path / "metrics.jsonl", epochs=1).rows == [{"epoch": 1}]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space there, or give another place"),
        (errno.EDQUOT, "free some space there, or give another place"),
        (errno.EIO, "the disk may be failing"),
    ],
)
def test_an_error_while_writing_that_names_no_file(number: int, advice: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError) as caught, replacing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"{tmp_path / 'a'}: cannot be written: {os.strerror(number)}; {advice}"
    assert caught.value.errno == number
    assert isinstance(caught.value, FastloaaError)
    assert isinstance(caught.value, OSError)


def test_a_place_that_takes_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "full").mkdir(parents=True)
    long = "x" * 300
    for path, reason in {
        tmp_path / "file" / "a.json": "(File exists|Not a directory)",
        tmp_path / "folder": "Is a directory",
        tmp_path / long: "File name too long; give a shorter name",
        Path("/proc/a.json"): "No such file or directory",  # takes none from anybody
    }.items():
        with pytest.raises(WriteError, match=rf"^{path}: cannot be written: {reason}"):
            write_json(path, {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "full"]


def test_names_of_the_greatest_length(tmp_path: Path) -> None:
    for name in ("x" * 250 + ".json", "語" * 83 + ".json"):
        write_json(tmp_path / name, {})
        assert (tmp_path / name).read_text() == "{}\n"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "other.wav"),
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/other.wav"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset"),
        ValueError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_pass_and_leave_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(type(error)) as caught, replacing("a.txt") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_what_a_writer_leaves_beside_its_file_goes_too(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.bin") as temporary:
        (temporary.parent / ".tmp123").touch()  # as safetensors does while it writes
        temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_everybody_may_read_what_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a.safetensors") as temporary:
            save_file({"a": torch.zeros(1)}, temporary)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the machine's loss of power may leave an empty file in place of the old one."""
    seen: list[tuple[Path, bool]] = []
    target = tmp_path / "a.json"
    flush = os.fsync

    def watched(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").readlink(), target.exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_json(target, {})
    (file, renamed), (folder, after) = seen
    assert file.name == "a.json"
    assert not renamed
    assert (folder, after) == (tmp_path.resolve(), True)


def test_a_file_that_cannot_be_flushed_is_not_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # where space is given out late

    (tmp_path / "a.json").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left on device"):
        write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    for name in ("new", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with making_folder(tmp_path / name) as temporary:
            temporary.mkdir()
            (temporary / "a").touch()
            (temporary.parent / "rest").touch()
            assert not list((tmp_path / name).glob("*"))
        assert [path.name for path in (tmp_path / name).iterdir()] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]


def test_a_folder_that_cannot_be_completed_is_not_there(tmp_path: Path) -> None:
    def make() -> None:
        with making_folder(tmp_path / "new") as temporary:
            temporary.mkdir()
            soundfile.write(temporary / "a.wav", np.zeros(9000), 16000)

    with files_of_at_most(1000), pytest.raises(WriteError):
        make()
    assert list(tmp_path.iterdir()) == []


def test_the_librarys_own_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FastloaaError, match=r"^mine$"), writing(tmp_path / "a"):
        raise FastloaaError("mine")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # names of sockets are short
        listener.bind(path.name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "it is a device, a pipe or a socket, and no file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, a pipe or a socket, and no file"),
        (make_socket, "it is a device, a pipe or a socket, and no file"),
        (os.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path.parent), "Is a directory"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "adapter.safetensors", "recipe.yaml", "a.png", "metrics.csv"])
def test_what_is_no_file_is_not_replaced(
    name: str, make: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renaming a file over it succeeds, for an administrator over /dev/null too."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    before = (tmp_path / name).lstat()
    with pytest.raises(WriteError, match=rf"{name}: cannot be written: {message}; give another place"):
        WRITERS[name](tmp_path / name)
    assert (tmp_path / name).lstat()[:3] == before[:3]  # kind, inode, device
    assert [path.name for path in tmp_path.iterdir()] == [name]


NOT_UTF8 = os.fsdecode(b"caf\xe9")
REFUSING: dict[str, Callable[[Path], object]] = {
    "adapter": lambda folder: save_adapter(adapt(small_ast()), folder / "a.safetensors"),
    "model": lambda folder: small_ast().save(folder / "a.safetensors"),
    "merged": lambda folder: save_merged(merge(adapt(small_ast())), folder / "a.safetensors"),
    "tensors": lambda folder: write_safetensors(folder / "a", {}, {}),
    "onnx": lambda folder: to_onnx(small_ast(), folder / "a.onnx"),
    "onnx by name": lambda folder: to_onnx(small_ast(), folder.with_name(f"{NOT_UTF8}.onnx")),
    "bundle": lambda folder: write_bundle("never.onnx", folder / "bundle"),
    "run": lambda folder: train(Recipe(data="x"), folder / "run"),
}


@pytest.mark.parametrize("name", REFUSING)
def test_a_path_that_libraries_do_not_open_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """Before anything is made, in one line that any stream takes."""
    with pytest.raises(
        FileError, match=r"caf\\xe9\S*: not UTF-8, and safetensors and onnxruntime open no such"
    ) as error:
        REFUSING[name](tmp_path / NOT_UTF8)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.json", "recipe.yaml", "a.png", "a.svg", "metrics.csv"])
def test_other_files_have_any_name(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / NOT_UTF8 / f"{NOT_UTF8}{name}")
    assert (tmp_path / NOT_UTF8 / f"{NOT_UTF8}{name}").stat().st_size


@pytest.mark.parametrize(("reader", "name"), [(read_safetensors, "a.safetensors"), (Classifier, "a.onnx")])
def test_a_file_that_libraries_do_not_open_is_named(
    reader: Callable[[Path], object], name: str, tmp_path: Path
) -> None:
    (tmp_path / NOT_UTF8).mkdir()
    (tmp_path / NOT_UTF8 / name).write_bytes(b"x" * 99)
    with pytest.raises(FileError, match=rf"caf\\xe9/{name}: not UTF-8, and safetensors and onnxruntime open no such"):
        reader(tmp_path / NOT_UTF8 / name)


def test_a_full_folder_for_temporary_files_is_named(tmp_path: Path) -> None:
    """8 bits take copies there; the file that was asked for is not to blame, and not there."""
    model, clips = small_ast(backbone_options=SMALL | {"depth": 1}), [0.1 * torch.randn(9000)]
    quantise_into = tmp_path / "model.onnx"
    write_graph(Inference(model), metadata_of(model), tmp_path / "fp32.onnx")
    with files_of_at_most(100), pytest.raises(WriteError, match=r"cannot be written: File too large") as error:
        quantise(tmp_path / "fp32.onnx", quantise_into, [clip[None].numpy() for clip in clips])
    assert str(error.value).startswith(f"{tempfile.gettempdir()} (for temporary files; TMPDIR names another folder): ")
    assert not quantise_into.exists()


@pytest.mark.parametrize("name", ["a.json", "a.onnx", "adapter.safetensors", "recipe.yaml"])
def test_folders_that_were_made_for_nothing_are_gone(name: str, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with files_of_at_most(100), pytest.raises(WriteError):
        WRITERS[name](tmp_path / "old" / "new" / "newer" / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]
