"""`make release`: an installed wheel, tried outside the repository: `smoke.py core` alone, or with `extras`."""

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from packaging.version import Version

import fastloaa
from fastloaa import AST, adapt, load_adapter, save_adapter
from fastloaa.audio import LogMel
from fastloaa.export import merge

PROGRAM = Path(sys.executable).with_name("fastloaa")
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}


def model() -> AST:
    return AST(5, frames=64, backbone="deit_tiny_distilled_patch16_224", backbone_options=SMALL)


def core(folder: Path) -> None:
    """What torch, timm, numpy and safetensors are enough for; the rest says in one line what it needs."""
    torch.manual_seed(0)
    adapted = adapt(model(), attn="time", ffn="freq", bottleneck=4)
    for block in adapted.backbone.blocks:
        torch.nn.init.normal_(block.loaa_attn.up.weight, std=0.1)
    adapted(adapted.front_end(torch.randn(2, 9000))).sum().backward()
    save_adapter(adapted, folder / "adapter.safetensors")
    plain = model()
    plain.load_state_dict({k: v for k, v in adapted.state_dict().items() if "loaa_" not in k})
    loaded = load_adapter(plain, folder / "adapter.safetensors").eval()
    features = loaded.front_end(torch.randn(2, 9000))
    torch.testing.assert_close(merge(loaded)(features), adapted.eval()(features), rtol=1e-4, atol=1e-4)
    assert LogMel()(torch.randn(1, 16000)).shape == (1, 98, 128)
    # Some versions of huggingface_hub bring typer, so that the command line starts and its command complains.
    command = [PROGRAM, "train", "--data", folder, "--out", folder / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode, done
    assert done.stdout == "", done
    assert "pip install 'fastloaa[train]'" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def extras(folder: Path) -> None:
    """The command line, and a file that answers where PyTorch can write it."""
    from fastloaa.export import Classifier, to_onnx

    for arguments in (["--version"], ["doctor"], ["recipes"]):
        subprocess.run([PROGRAM, *arguments], check=True)
    if Version(torch.__version__) < Version("2.8"):
        return
    to_onnx(adapt(model(), bottleneck=4), folder / "model.onnx")
    assert len(Classifier(folder / "model.onnx").metadata.labels) == 5


if __name__ == "__main__":
    assert Path(fastloaa.__file__).is_relative_to(sys.prefix), fastloaa.__file__
    with tempfile.TemporaryDirectory() as name:
        {"core": core, "extras": extras}[sys.argv[1]](Path(name))
    print(f"{sys.argv[1]}: works, Python {platform.python_version()}, torch {torch.__version__}")
