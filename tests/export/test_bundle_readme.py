"""A bundle's README, read as its readers do: its code is that of the files, its commands run."""

import ast
import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from fastloaa import AST
from fastloaa.export import to_onnx, write_bundle
from fastloaa.export.bundle.browser import PARTS
from helpers.bundles import LABELS
from helpers.small import SMALL, small_ast
from helpers.sounds import noise

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SUFFIXES = {"python": ".py", "cpp": ".cpp", "js": ".mjs", "bash": ".sh"}


def exported(folder: Path, model: AST) -> Path:
    to_onnx(model, folder / "model.onnx", waveform=model.front_end.reads == "waveform")
    write_bundle(folder / "model.onnx", folder)
    return folder


@pytest.fixture(scope="module")
def of_log_mels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = SMALL | {"depth": 1}
    model = small_ast(labels=LABELS, front_end="log-mel", mel_bins=48, backbone_options=options)
    return exported(tmp_path_factory.mktemp("mels") / "mels", model)


@pytest.fixture(params=["sounds", "log-mels"])
def described(request: pytest.FixtureRequest, bundle: Path) -> Path:
    return bundle if request.param == "sounds" else request.getfixturevalue("of_log_mels")


def readme(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def commands(folder: Path) -> list[str]:
    """The blocks that a shell is given."""
    return [code for language, code in FENCED.findall(readme(folder)) if not language]


def test_shown_code_is_that_of_the_files(described: Path) -> None:
    """All clients of the bundle, and nothing but them."""
    shown = {(SUFFIXES[language], code) for language, code in FENCED.findall(readme(described)) if language}
    clients = [path for path in described.iterdir() if path.suffix in SUFFIXES.values()]
    assert shown == {(path.suffix, path.read_text(encoding="utf-8")) for path in clients}


def test_nothing_is_left_to_fill_in(described: Path) -> None:
    """But what a shell knows."""
    text = FENCED.sub("", readme(described))
    assert not re.findall(r"\$\{?[a-z_]\w*", text)
    for code in commands(described):
        assert set(re.findall(r"\$\{?(\w+)", code)) <= {"ORT", "PWD"}
        assert subprocess.run(["bash", "-n"], input=code, text=True, check=False).returncode == 0


def test_what_it_says_to_install_is_what_its_python_imports(described: Path) -> None:
    (told,) = re.findall(r"`pip install ([\w ]+)`, then", readme(described))
    tree = ast.parse((described / "classify.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert set(told.split()) == {name.partition(".")[0] for name in names} - sys.stdlib_module_names


def test_its_python_answers(described: Path, tmp_path: Path) -> None:
    (command,) = re.findall(r"then `python (\S+ \S+)`", readme(described))
    script, clip = shlex.split(command)
    if clip.endswith(".npy"):
        np.save(tmp_path / clip, np.zeros((70, 48), np.float32))
    else:
        soundfile.write(tmp_path / clip, np.zeros(9000), 16000)
    result = subprocess.run(
        [sys.executable, described / script, clip], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert {name for name, *_ in rows} == {clip}
    assert {label for _, label, _ in rows} <= set(LABELS)


def test_what_the_program_in_cpp_is_given(bundle: Path, tmp_path: Path) -> None:
    """By a real ffmpeg: the mean of the channels, as in classify.py."""
    (code,) = re.findall(r"^ffmpeg .*?< clip\.f32$", readme(bundle), re.MULTILINE | re.DOTALL)
    soundfile.write(tmp_path / "clip.wav", noise(5000, channels=2), 16000)
    (tmp_path / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    (tmp_path / "classify").write_text("#!/bin/sh\ncat > heard.f32\n")
    (tmp_path / "classify").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", code], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True)
    stored, _ = soundfile.read(tmp_path / "clip.wav")
    np.testing.assert_allclose(np.fromfile(tmp_path / "heard.f32", "<f4"), stored.mean(axis=1), atol=1e-6)


def test_onnxruntime_web_by_hand(bundle: Path, tmp_path: Path) -> None:
    """The commands leave what the page imports where it looks for it."""
    (code,) = (code for code in commands(bundle) if "npm pack" in code)
    (archive,) = re.findall(r"tar -xzf (\S+)", code)
    with tarfile.open(tmp_path / "packed.tgz", "w:gz") as packed:
        for part in (*PARTS, "package.json"):
            member = tarfile.TarInfo(f"package/{part}")
            member.size = len(part)
            packed.addfile(member, io.BytesIO(part.encode()))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "npm").write_text(f'#!/bin/sh\ncp "{tmp_path}/packed.tgz" {archive}\n')  # as `npm pack` does
    (tmp_path / "bin" / "npm").chmod(0o755)
    work = tmp_path / "bundle"
    work.mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", code], cwd=work, env=os.environ | {"PATH": path}, check=True)
    put = {str(file.relative_to(work)) for file in (work / "web").rglob("*") if file.is_file()}
    assert put == {f"web/onnxruntime/{Path(part).name}" for part in PARTS}
    imported = re.findall(r'from "\./(onnxruntime/\S+)"', (bundle / "web" / "worker.js").read_text())
    assert {f"web/{name}" for name in imported} <= put


def test_the_server_is_given_a_repository(bundle: Path) -> None:
    """Of the folder that is mounted."""
    (code,) = (code for code in commands(bundle) if "docker run" in code)
    words = shlex.split(code.replace("<release>", "26.08"))
    source, target, _ = words[words.index("-v") + 1].split(":")
    (repository,) = (word.partition("=")[2] for word in words if word.startswith("--model-repository="))
    assert source == "$PWD"
    assert (bundle / Path(repository).relative_to(target)).is_dir()
