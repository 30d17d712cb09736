"""to_onnx in float32: the file says what PyTorch says, for any batch and length, and nothing else is left behind."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import fastloaa
from fastloaa import AST, LoAA, adapt
from fastloaa.errors import ArgumentError
from fastloaa.export import Classifier, ExportError, VerificationError, merge, to_onnx
from fastloaa.export.opsets import DEFAULT, OPSETS
from fastloaa.export.verify import Report
from fastloaa.files import FileError
from helpers.small import SMALL, small_ast, small_vit, wake_adapters

SHALLOW = {"backbone_options": SMALL | {"depth": 1}}  # where the layers are not the subject
LABELS = ("dog", "rain", "Säge", "sea waves", 'a "quoted" one')


def make_adapted(**options: object) -> AST:
    model = adapt(small_ast(labels=LABELS, **options), bottleneck=6)
    wake_adapters(model)
    return model


def make_overlapping(**options: object) -> AST:
    """Another kind of ViT (cls alone), patches that overlap, frames that do not divide, and a linear adapter."""
    model = small_ast(frames=50, stride=10, backbone="vit_tiny_patch16_224", mean=-6.6, std=5.3, **options)
    adapt(model, attn=(3, 3), ffn="linear", bottleneck=4, bias=True, scale=0.5, activation="silu")
    wake_adapters(model)
    return model


MODELS = {"adapted": make_adapted, "overlapping": make_overlapping, "plain": small_ast}


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[AST, Path]:
    torch.manual_seed(0)
    model = MODELS[request.param]()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(model, path)
    return model, path


def run(path: Path, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return torch.from_numpy(logits), torch.from_numpy(probabilities)


@torch.no_grad()
def test_says_what_pytorch_says_for_any_batch_and_length(exported: tuple[AST, Path]) -> None:
    model, path = exported
    filling = model.front_end.samples
    for samples in (1, 399, 400, 5000, filling - 1, filling, filling + 1, 160_000):
        for batch in (1, 2, 3, 17):
            waveform = 0.3 * torch.randn(batch, samples) + 0.1
            expected = model(model.front_end(waveform))
            logits, probabilities = run(path, waveform=waveform)
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(probabilities, expected.softmax(1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_silence_tones_and_clicks_agree_too(exported: tuple[AST, Path]) -> None:
    """Bands at the floor beside loud ones: where a logarithm shows every rounding."""
    model, path = exported
    time = torch.arange(16000) / 16000
    tone = torch.sin(2 * torch.pi * 1000 * time)
    waveform = torch.stack([0 * time, 0 * time + 0.5, tone, 1e-4 * tone, (torch.arange(16000) % 1600 == 0).float()])
    torch.testing.assert_close(run(path, waveform=waveform)[0], model(model.front_end(waveform)), atol=5e-5, rtol=0)


def test_the_adapters_are_in_the_file() -> None:
    """The comparisons above would not see them if they hardly mattered."""
    for make in (make_adapted, make_overlapping):
        model = make()
        log_mel = torch.randn(3, model.front_end.frames, 128)
        adapted = model(log_mel)
        for module in model.modules():
            if isinstance(module, LoAA):
                nn.init.zeros_(module.up.weight)
        assert (model(log_mel) - adapted).abs().max() > 0.05


def test_the_graph_is_standard_onnx_with_free_axes_in_one_file(exported: tuple[AST, Path]) -> None:
    _, path = exported
    proto = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", DEFAULT)]
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert [child.name for child in path.parent.iterdir()] == ["model.onnx"]
    assert shape(proto.graph.input[0]) == ["batch", "samples"]
    assert [(out.name, shape(out)) for out in proto.graph.output] == [
        ("logits", ["batch", 5]),
        ("probabilities", ["batch", 5]),
    ]
    content = path.read_bytes()
    for folder in (Path(fastloaa.__file__).parent, Path(torch.__file__).parent, Path(__file__).parent):
        assert str(folder).encode() not in content


def test_norms_are_single_operators(exported: tuple[AST, Path]) -> None:
    """And shifted sums are no chains of ScatterND, five times the nodes and minutes to export."""
    operators = [node.op_type for node in onnx.load(exported[1]).graph.node]
    assert operators.count("LayerNormalization") == 6  # two in each block, the backbone's, the head's
    assert operators.count("Softmax") == 2 + 1  # attention's, and the probabilities
    # qkv, proj, fc1, fc2, adapters or not; the last block reads prefix tokens and all separately; two of attention; the
    # mel filters
    assert operators.count("MatMul") == 4 + 5 + 2 * 2 + 1
    assert not {operator for operator in operators if operator in ("Sqrt", "ReduceVar", "ScatterND")}


def test_merged_or_beside_the_blocks(tmp_path: Path) -> None:
    """Two products for each of the adapters, or none; a merged model needs no merging."""
    model = make_adapted(**SHALLOW)
    for name, source, merged, products in (("beside", model, False, 5 + 2 + 4), ("by hand", merge(model), True, 5 + 2)):
        report = to_onnx(source, tmp_path / name, waveform=False, merged=merged)
        operators = [node.op_type for node in onnx.load(tmp_path / name).graph.node]
        assert operators.count("MatMul") == products
        assert report.difference < 1e-5
    log_mel = torch.randn(2, 64, 128)
    for name in ("beside", "by hand"):
        torch.testing.assert_close(run(tmp_path / name, log_mel=log_mel)[0], model(log_mel), atol=1e-5, rtol=0)


def test_adapters_that_cannot_be_merged(tmp_path: Path) -> None:
    model = adapt(small_ast(**SHALLOW), bottleneck=4, normed_input=False)
    with pytest.raises(ExportError, match=r"un-normed input.*; merged=False \(--no-merge\) exports them beside"):
        to_onnx(model, tmp_path / "model.onnx", waveform=False)


def test_under_autocast(tmp_path: Path) -> None:
    """As at the end of a training loop: the file is float32's, and is compared with float32."""
    model = small_ast(backbone_options=SMALL | {"depth": 1})
    with torch.autocast("cpu", torch.bfloat16):
        report = to_onnx(model, tmp_path / "model.onnx", waveform=False)
    assert report.difference < 1e-5
    log_mel = torch.randn(2, 64, 128)
    expected = model(log_mel)
    torch.testing.assert_close(run(tmp_path / "model.onnx", log_mel=log_mel)[0], expected, atol=1e-5, rtol=0)


def test_threads_export_at_the_same_time(tmp_path: Path) -> None:
    """PyTorch's exporter is one for all of them, and so is stderr, which it is kept from."""
    model, stderr, begin = small_ast(backbone_options=SMALL | {"depth": 1}), sys.stderr, Barrier(2)

    def export(name: str) -> Report:
        begin.wait()
        return to_onnx(model, tmp_path / name)

    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(export, ("a.onnx", "b.onnx")))
    assert sys.stderr is stderr
    assert [report.size for report in reports] == [(tmp_path / name).stat().st_size for name in ("a.onnx", "b.onnx")]
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
@torch.no_grad()
def test_timm_models_read_images(name: str, tmp_path: Path) -> None:
    """One prefix token, and DeiT's two with a head each."""
    model = adapt(small_vit(name), bottleneck=6)
    wake_adapters(model)
    with pytest.raises(ArgumentError, match=r"of \[1, 64, 128\], got \[1, 32, 64\]"):
        to_onnx(model, tmp_path / "model.onnx", waveform=False, calibration=[torch.randn(1, 32, 64)])
    images = [torch.randn(1, 64, 128), torch.randn(1, 64, 128).numpy()]
    report = to_onnx(model, tmp_path / "model.onnx", waveform=False, calibration=images)
    assert report.recordings == 2
    assert report.batches == (1, 3)
    assert report.agreement == 1.0
    proto = onnx.load(tmp_path / "model.onnx")
    assert [(entry.name, shape(entry)) for entry in proto.graph.input] == [("image", ["batch", 1, 64, 128])]
    props = {prop.key: prop.value for prop in proto.metadata_props}
    assert props["input"] == "image"
    assert json.loads(props["labels"]) == ["0", "1", "2", "3", "4"]
    assert "sample_rate" not in props
    for batch in (1, 2, 3, 17):
        image = torch.randn(batch, 1, 64, 128)
        torch.testing.assert_close(run(tmp_path / "model.onnx", image=image)[0], model(image), atol=1e-5, rtol=0)
    with pytest.raises(
        FileError, match=r"model\.onnx: the file was made from a timm model and reads images; for sound"
    ):
        Classifier(tmp_path / "model.onnx")


@torch.no_grad()
def test_contrib_operators_on_request(tmp_path: Path) -> None:
    model = make_adapted()
    to_onnx(model, tmp_path / "model.onnx", waveform=False, contrib=True)
    proto = onnx.load(tmp_path / "model.onnx")
    assert {entry.domain for entry in proto.opset_import} == {"", "com.microsoft"}
    assert "SkipLayerNormalization" in {node.op_type for node in proto.graph.node}
    assert {prop.key: prop.value for prop in proto.metadata_props}["input"] == "log_mel"
    log_mel = torch.randn(3, 64, 128)
    torch.testing.assert_close(run(tmp_path / "model.onnx", log_mel=log_mel)[0], model(log_mel), atol=1e-5, rtol=0)


def test_metadata(tmp_path: Path) -> None:
    model = make_overlapping(labels=LABELS, sample_rate=8000, mel_bins=64, **SHALLOW)
    report = to_onnx(model, tmp_path / "new" / "model.onnx")
    props = {p.key: p.value for p in onnx.load(tmp_path / "new" / "model.onnx").metadata_props}
    assert json.loads(props.pop("labels")) == list(LABELS)
    assert props == {
        "fastloaa": fastloaa.__version__,
        "task": "audio-classification",
        "input": "waveform",
        "front_end_kind": "ast",
        "sample_rate": "8000",
        "frames": "50",
        "mel_bins": "64",
        "mean": "-6.6",
        "std": "5.3",
        "samples": str(200 + 49 * 80),  # 25 ms, and 49 steps of 10 ms
        "shortest": "200",
        "opset": str(DEFAULT),
        "onnxruntime": OPSETS[DEFAULT],
        "tf32": "false",
        "precision": "fp32",
        "probabilities": "softmax",
        "multi_label": "false",
    }
    assert report.size == (tmp_path / "new" / "model.onnx").stat().st_size
    assert (report.opset, report.onnxruntime) == (DEFAULT, OPSETS[DEFAULT])
    assert report.precision == "fp32"
    assert (report.agreement, report.recordings) == (None, 0)
    assert report.batches == (1, 3)
    assert 0 < report.difference < 1e-5
    assert report.seconds > 0


@torch.no_grad()
def test_log_mel_in_and_labels_of_ones_own(tmp_path: Path) -> None:
    model = make_adapted(**SHALLOW)
    to_onnx(model, tmp_path / "model.onnx", waveform=False, labels=["a", "b", "c", "d", "e"])
    proto = onnx.load(tmp_path / "model.onnx")
    assert [(entry.name, shape(entry)) for entry in proto.graph.input] == [("log_mel", ["batch", 64, 128])]
    assert {p.key: p.value for p in proto.metadata_props}["labels"] == '["a", "b", "c", "d", "e"]'
    for batch in (1, 2, 3, 17):
        log_mel = torch.randn(batch, 64, 128)
        torch.testing.assert_close(run(tmp_path / "model.onnx", log_mel=log_mel)[0], model(log_mel), atol=1e-5, rtol=0)


def test_the_model_is_left_as_it_was_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    model = make_adapted(**SHALLOW).train()
    model.backbone.blocks[0].eval()
    model.head[1].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    rng = torch.get_rng_state()

    to_onnx(model, tmp_path / "model.onnx")

    assert modes == [module.training for module in model.modules()]
    assert trainable == [parameter.requires_grad for parameter in model.parameters()]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert {module.backend for module in model.modules() if isinstance(module, LoAA)} == {"auto"}
    assert torch.equal(rng, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


class Wavering(nn.Module):
    """A head that cannot be a graph: which way it goes depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :5] if x.sum() > 0 else x[:, 5:10]


def test_a_failed_translation_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("the old one")
    model = small_ast(**SHALLOW)
    model.head = Wavering()
    with pytest.raises(ExportError, match=r"^torch\.onnx\.export cannot translate the model: .*data-dependent.*$"):
        to_onnx(model, tmp_path / "model.onnx")
    assert {child.name: child.read_text() for child in tmp_path.iterdir()} == {"model.onnx": "the old one"}


def test_a_file_that_fails_verification_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("the old one")
    with pytest.raises(VerificationError, match="expected at most 0;"):
        to_onnx(small_ast(**SHALLOW), tmp_path / "model.onnx", tolerance=0.0)
    assert {child.name: child.read_text() for child in tmp_path.iterdir()} == {"model.onnx": "the old one"}


def test_refuses_what_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"fastloaa\.AST models and timm's VisionTransformer and Eva, got Linear; for "):
        to_onnx(nn.Linear(2, 2), tmp_path / "model.onnx")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a timm model has no front end; give waveform=False"):
        to_onnx(small_vit(), tmp_path / "model.onnx")
    for labels in (["one", "two"], []):
        with pytest.raises(ValueError, match=f"{len(labels)} labels were given for 5 classes"):
            to_onnx(small_ast(), tmp_path / "model.onnx", labels=labels)
    with pytest.raises(ValueError, match="precision is one of fp32, fp16, int8, int8-dynamic; got 'fp64'"):
        to_onnx(small_ast(), tmp_path / "model.onnx", precision="fp64")  # type: ignore[arg-type]
    for precision in ("fp16", "int8"):
        with pytest.raises(ValueError, match=f"{precision} is checked on recordings; give some"):
            to_onnx(small_ast(), tmp_path / "model.onnx", precision=precision)
        with pytest.raises(ValueError, match="contrib goes with fp32; leave it out"):
            to_onnx(small_ast(), tmp_path / "m.onnx", precision=precision, calibration=[torch.ones(9)], contrib=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_papers_model_at_full_size(tmp_path: Path) -> None:
    """AST-base as for ESC-50, r = 36 at both sites of 12 blocks: 90 million weights, 4 bytes each, once."""
    model = adapt(AST(50, frames=512), "time", "freq", bottleneck=36).eval()
    wake_adapters(model)
    report = to_onnx(model, tmp_path / "model.onnx")
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert 4 * weights < report.size < 4 * weights + 2_000_000  # the front end's matrices are 1 MB
    assert report.difference < 2e-5


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_an_old_torch_is_told_which_one_exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "__version__", "2.7.1+cu126")
    with pytest.raises(ExportError, match=r"needs torch 2\.8 or newer, this is 2\.7\.1\+cu126"):
        to_onnx(small_ast(), tmp_path / "model.onnx")
