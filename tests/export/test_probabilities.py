"""A file's probabilities are those of the loss that its model was trained with, wherever the model has been since."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from torch import Tensor

from fastloaa import AST, adapt, load_adapter, save_adapter
from fastloaa.export import Classifier, VerificationError, load_merged, merge, save_merged, to_onnx
from fastloaa.export.classifier import THRESHOLD
from fastloaa.export.onnx import metadata_of
from fastloaa.export.onnx_file import Metadata
from fastloaa.export.verify import verify
from fastloaa.files import read_safetensors, write_safetensors
from fastloaa.training import Recipe, load_run
from helpers.small import SMALL, small_ast, small_vit, wake_adapters
from helpers.trained_run import write_run

LABELS = ("dog", "rain", "saw", "sea", "clock")
SEVERAL = {"probabilities": "sigmoid", "multi_label": True}


def make(**options: object) -> AST:
    torch.manual_seed(0)
    model = adapt(small_ast(labels=LABELS, backbone_options=SMALL | {"depth": 1}, **options), bottleneck=4)
    wake_adapters(model)
    return model


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[AST, Path]:
    """A model of several labels to a clip, sure of "rain", "sea" and not "saw", whatever it hears; and its file."""
    model = make(**SEVERAL)
    model.head[1].bias.data = torch.tensor([-3.0, 4.0, -6.0, 3.0, -4.0])
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(model, path)
    return model, path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).normal(size=9000), 16000)
    return tmp_path / "noise.wav"


@torch.no_grad()
def expected(model: AST, waveform: Tensor) -> Tensor:
    """Sigmoids of PyTorch's logits, in float64."""
    return 1 / (1 + (-model(model.front_end(waveform)).double()).exp())


def test_sigmoid_where_the_model_says_so(several: tuple[AST, Path]) -> None:
    model, path = several
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    props = session.get_modelmeta().custom_metadata_map
    assert (props["probabilities"], props["multi_label"]) == ("sigmoid", "true")
    waveform = 0.1 * torch.randn(3, 9000)
    answers = torch.from_numpy(session.run(["probabilities"], {"waveform": waveform.numpy()})[0])
    torch.testing.assert_close(answers.double(), expected(model, waveform), atol=1e-6, rtol=0)
    verify(path, model)


def test_a_softmax_that_calls_itself_sigmoid_is_found(several: tuple[AST, Path], tmp_path: Path) -> None:
    proto = onnx.load(several[1])
    last = next(node for node in proto.graph.node if "probabilities" in node.output)
    last.op_type = "Softmax"
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(VerificationError, match="in the probabilities"):
        verify(tmp_path / "wrong.onnx", several[0])


def test_all_labels_that_are_probable_enough_are_named(several: tuple[AST, Path], sound: Path) -> None:
    model, path = several
    probable = expected(model, torch.from_numpy(soundfile.read(sound, dtype="float32")[0])[None])[0]
    order = probable.argsort(descending=True).tolist()

    def named(**options: float) -> tuple[str, ...]:
        (prediction,) = Classifier(path).classify([sound], **options)  # type: ignore[arg-type]
        assert prediction.error is None
        assert len(prediction.labels) == len(prediction.probabilities)
        return prediction.labels

    for least in (0.0, 1e-3, 0.02, THRESHOLD, 0.9, 1.0):
        assert named(threshold=least) == tuple(LABELS[index] for index in order if probable[index] >= least)
    assert named() == named(threshold=THRESHOLD) == ("rain", "sea")
    assert named(threshold=1.0) == ()
    assert named(threshold=0.0) == tuple(LABELS[index] for index in order)
    assert named(top=4) == named(threshold=0.0)[:4]  # asked for so many, whatever they are
    assert named(top=1, threshold=0.5) == ("rain",)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), 50])
def test_a_threshold_is_a_probability(threshold: float, several: tuple[AST, Path]) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 1, got {threshold}"):
        Classifier(several[1]).classify([], threshold=threshold)


def test_one_label_to_a_clip_by_bce_is_named_as_evaluate_counts_it(tmp_path: Path, sound: Path) -> None:
    """Speech Commands' recipe: the largest is the answer, however small its sigmoid is."""
    model = make(probabilities="sigmoid")
    model.head[1].bias.data -= 9
    to_onnx(model, tmp_path / "model.onnx")
    (prediction,) = Classifier(tmp_path / "model.onnx").classify([sound])
    probable = expected(model, torch.from_numpy(soundfile.read(sound, dtype="float32")[0])[None])[0]
    assert prediction.labels == tuple(LABELS[index] for index in probable.argsort(descending=True)[:3])
    assert prediction.probabilities == pytest.approx(probable.sort(descending=True).values[:3].tolist(), rel=1e-3)
    assert sum(prediction.probabilities) < 0.01


def test_what_the_argument_says_counts(several: tuple[AST, Path]) -> None:
    plain, vit = make(), small_vit()
    cases = [
        (plain, {}, ("softmax", False)),
        (plain, {"probabilities": "sigmoid"}, ("sigmoid", False)),
        (plain, {"probabilities": "sigmoid", "multi_label": True}, ("sigmoid", True)),
        (vit, {}, ("softmax", False)),
        (vit, {"probabilities": "sigmoid", "multi_label": True}, ("sigmoid", True)),
        (several[0], {}, ("sigmoid", True)),
        (several[0], {"multi_label": False}, ("sigmoid", False)),
        (several[0], {"probabilities": "softmax"}, ("softmax", False)),
    ]
    for model, options, wanted in cases:
        found = metadata_of(model, isinstance(model, AST), **options)  # type: ignore[arg-type]
        assert (found.probabilities, found.multi_label) == wanted
    for options, complaint in (
        ({"probabilities": "tanh"}, 'probabilities is "softmax" or "sigmoid", got \'tanh\''),
        ({"multi_label": True}, 'several labels to a clip go with probabilities "sigmoid"'),
    ):
        with pytest.raises(ValueError, match=complaint):
            to_onnx(plain, "never.onnx", **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=complaint):
            small_ast(**options)
    assert not Path("never.onnx").exists()


def through_an_adapter_file(model: AST, folder: Path) -> AST:
    save_adapter(model, folder / "adapter.safetensors")
    torch.manual_seed(0)
    return load_adapter(small_ast(backbone_options=SMALL | {"depth": 1}), folder / "adapter.safetensors")


def through_a_whole_file(_: AST, folder: Path) -> AST:
    small_ast(**SEVERAL).save(folder / "model.safetensors")
    return AST.load(folder / "model.safetensors")


def through_a_merged_file(model: AST, folder: Path) -> AST:
    save_merged(merge(model), folder / "merged.safetensors")
    merged = load_merged(folder / "merged.safetensors")
    assert isinstance(merged, AST)
    return merged


WAYS: dict[str, Callable[[AST, Path], AST]] = {
    "adapter file": through_an_adapter_file,
    "whole file": through_a_whole_file,
    "merged": lambda model, _: merge(model),
    "merged file": through_a_merged_file,
    "copy": lambda model, _: copy.deepcopy(model),
    "configuration": lambda model, _: AST.from_config(model.config()),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_they_go_where_the_model_goes(way: Callable[[AST, Path], AST], tmp_path: Path) -> None:
    found = metadata_of(way(make(**SEVERAL), tmp_path))
    assert (found.probabilities, found.multi_label) == ("sigmoid", True)


@pytest.mark.parametrize(("loss", "kind"), [("bce", "sigmoid"), ("cross_entropy", "softmax")])
def test_a_run_whose_weights_do_not_say_has_those_of_its_recipe(loss: str, kind: str, tmp_path: Path) -> None:
    """As versions wrote it that knew of no probabilities."""
    _, folder = write_run(tmp_path)
    state, metadata = read_safetensors(folder / "adapter.safetensors")
    for name in SEVERAL:
        del metadata["model"][name]
    write_safetensors(folder / "adapter.safetensors", state, metadata)
    Recipe.load(folder / "recipe.yaml").replace(loss=loss).save(folder / "recipe.yaml")
    model = load_run(folder)
    assert (model.probabilities, model.multi_label) == (kind, False)


def test_a_file_that_does_not_say_has_a_softmax() -> None:
    props = Metadata(fastloaa="1", task="t", input="image", precision="fp32", labels=("a",), opset=23).to_props()
    for name in SEVERAL:
        del props[name]
    found = Metadata.from_props(props)
    assert (found.probabilities, found.multi_label) == ("softmax", False)
