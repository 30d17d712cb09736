"""Sounds from pipes and standard input, and what is no file at all."""

import contextlib
import errno
import io
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fastloaa.audio import AudioError, decode, load_audio, sources
from helpers.full_disk import files_of_at_most
from helpers.sounds import encoded, noise, wav_with_sizes

KINDS = ["WAV", "FLAC", "OGG", "MP3", "AU", "AIFF", "CAF", "W64"]


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a named pipe into which a thread writes some bytes, and then others for ever."""
    threads = []

    def make(content: bytes, for_ever: bytes = b"") -> Path:
        path = tmp_path / f"pipe{len(threads)}"
        os.mkfifo(path)

        def write() -> None:
            try:
                with path.open("wb") as file:
                    file.write(content)
                    while for_ever:
                        file.write(for_ever)
            except BrokenPipeError:
                pass  # the reader has enough

        threads.append(threading.Thread(target=write, daemon=True))
        threads[-1].start()
        return path

    yield make
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipe_gives_what_the_file_gives(kind: str, fifo: Callable[..., Path], tmp_path: Path) -> None:
    content = encoded(noise(24_000, channels=2), 16000, kind)
    (tmp_path / "file").write_bytes(content)
    assert torch.equal(load_audio(fifo(content)), load_audio(tmp_path / "file"))
    segment = load_audio(fifo(content), 16000, 0.5, 1.0)
    assert torch.equal(segment, load_audio(tmp_path / "file", 16000, 0.5, 1.0))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
@pytest.mark.parametrize("name", ["-", Path("-")])
def test_standard_input(kind: str, name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(encoded(noise(24_000), 16000, kind))
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb") as writer:
        thread = threading.Thread(target=lambda: (writer.write((tmp_path / "a").read_bytes()), writer.close()))
        thread.start()
        monkeypatch.setattr(sys, "stdin", stdin)
        assert torch.equal(load_audio(name), load_audio(tmp_path / "a"))
        thread.join()


@pytest.mark.parametrize("kind", ["WAV", "AU", "FLAC"])
def test_of_an_endless_pipe_only_the_beginning_is_read(kind: str, fifo: Callable[..., Path]) -> None:
    content = encoded(noise(24_000), 16000, kind)
    endless = wav_with_sizes(content, 0xFFFFFFFF, 0xFFFFFFFF) if kind == "WAV" else content
    if kind == "AU":
        endless = content[:8] + b"\xff" * 4 + content[12:]
    path = fifo(endless, for_ever=bytes(1 << 16))
    assert len(load_audio(path, 16000, 0.5, 1.25)) == 12_000


def test_more_than_can_be_kept_is_refused(fifo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LONGEST_PIPE", 1 << 20)
    with pytest.raises(AudioError, match=r"pipe0: more than 1 MiB came out of the pipe; save it as a file"):
        load_audio(fifo(b"RIFF", for_ever=bytes(1 << 16)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a sound file but empty, 0 bytes"), (b"hello " * 99, "not a sound file"), (b"RIFF", "not a sound file")],
)
def test_a_pipe_without_a_sound(content: bytes, message: str, fifo: Callable[..., Path]) -> None:
    with pytest.raises(AudioError, match=rf"pipe0: {message}"):
        load_audio(fifo(content))


def test_a_pipe_that_nobody_writes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0.1)
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=r"a\.wav: is a pipe \(FIFO\), and nothing came out of it in 0\.1 s"):
        load_audio(tmp_path / "a.wav")


def test_standard_input_that_is_closed_or_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(AudioError, match=r"^-: standard input is closed; pipe a sound into it$"):
        load_audio("-")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(AudioError, match=r"^-: not a sound file but empty, 0 bytes"):
        load_audio("-")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # names of sockets are short
        listener.bind(path.name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is a folder, expected a sound file"),
        (lambda path: path.symlink_to(path.parent), "is a folder, expected a sound file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, expected a sound file"),
        (lambda path: path.symlink_to("/dev/null"), "is a device, expected a sound file"),
        (lambda path: path.symlink_to("gone.wav"), "is a link to gone.wav, which does not exist; correct the link"),
        (lambda path: path.symlink_to(path.name), r"cannot be opened \(Too many levels of symbolic links\)"),
        (make_socket, "is a socket, expected a sound file"),
        (lambda path: None, "no such file; check the path"),
        (lambda path: path.write_bytes(b""), "not a sound file but empty, 0 bytes"),
        (lambda path: path.write_bytes(b"\0"), "not a sound file"),
    ],
)
def test_says_what_it_is(
    make: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.wav")
    with pytest.raises(AudioError, match=rf"x\.wav: {message}") as error:
        load_audio(tmp_path / "x.wav")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", r"(stat: )?embedded null (byte|character in path)"),  # from Python 3.13 on the latter
        ("x" * 300, "File name too long"),
        ("/dev/null/x.wav", "Not a directory"),
    ],
)
def test_names_that_no_file_has(name: str, message: str) -> None:
    with pytest.raises(AudioError, match=rf"cannot be opened \({message}\); check the path and its permissions$"):
        load_audio(name)


class Failing(io.BytesIO):
    """A disk that reads no further than a place."""

    def __init__(self, content: bytes, place: int) -> None:
        super().__init__(content)
        self.place = place

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() + (size or 0) > self.place:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
@pytest.mark.parametrize("share", [0.01, 0.7])
def test_a_disk_that_fails_on_the_way(
    kind: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """libsndfile reads through a function of ours: what is raised there comes out, and nothing is printed."""
    content = encoded(noise(24_000), 16000, kind)
    (tmp_path / "a").write_bytes(content)
    source = Failing(content, int(share * len(content)))
    monkeypatch.setattr(decode, "open_source", lambda *_: contextlib.nullcontext(source))
    monkeypatch.setattr(Path, "is_file", lambda path: False)  # else libsndfile opens it by its name
    with pytest.raises(AudioError, match=r"a: cannot be read \(Input/output error\); copy it again$"):
        load_audio(tmp_path / "a")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["WAV", "OGG"])
@pytest.mark.parametrize("stop", [None, 1.0])
def test_no_place_to_keep_what_comes_through_a_pipe(
    kind: str, stop: float | None, fifo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder for temporary files is named, not the pipe's."""
    monkeypatch.setattr(sources, "IN_MEMORY", 4096)
    path = fifo(encoded(noise(24_000), 16000, kind))
    with files_of_at_most(8192), pytest.raises(AudioError, match=r"pipe0: came through a pipe.* TMPDIR names") as error:
        load_audio(path, 16000, 0.0, stop)
    assert tempfile.gettempdir() in str(error.value)
