"""What an exported file says about itself, and clear words for what is not one."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fastloaa.export import Classifier
from fastloaa.export.onnx_file import Metadata, open_session
from fastloaa.export.precisions import PRECISIONS
from fastloaa.files import FileError

finite = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.integers(min_value=1)


@given(
    st.builds(
        Metadata,
        input=st.sampled_from(["waveform", "log_mel"]),
        precision=st.sampled_from(list(PRECISIONS)),
        labels=st.lists(st.text()).map(tuple),
        probabilities=st.just("sigmoid"),
        multi_label=st.booleans(),
        tf32=st.booleans(),
        embedding=st.none() | sizes,
        onnxruntime=st.none() | st.text(),
        **dict.fromkeys(("sample_rate", "frames", "mel_bins", "samples", "opset"), sizes),
        mean=finite,
        std=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    )
)
def test_metadata_survives_as_text(metadata: Metadata) -> None:
    props = metadata.to_props()
    assert all(isinstance(value, str) for value in props.values())
    assert Metadata.from_props(props) == metadata


def test_files_of_timm_models_have_no_front_end() -> None:
    metadata = Metadata(fastloaa="1", task="t", input="image", precision="fp32", labels=("a",), opset=23)
    assert Metadata.from_props(metadata.to_props()) == metadata
    assert "frames" not in metadata.to_props()
    with pytest.raises(ValueError, match="reads images; for sound"):
        metadata.front_end()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A valid ONNX file of somebody else's."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "f.onnx")
    return tmp_path / "f.onnx"


def test_an_onnx_file_of_others(foreign: Path) -> None:
    with pytest.raises(FileError, match=r"f\.onnx: an ONNX file without fastloaa's metadata; expected one that"):
        Classifier(foreign)
    proto = onnx.load(foreign)
    helper.set_model_props(proto, {"labels": "not JSON", "sample_rate": "16000"})
    onnx.save(proto, foreign)
    with pytest.raises(FileError, match="without fastloaa's metadata"):
        Classifier(foreign)


@pytest.mark.parametrize("content", [b"", b"RIFF of something", b"\x08\x0a" * 50])
def test_a_file_that_is_not_onnx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(FileError, match=r"model\.onnx: ") as caught:
        Classifier(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path, what in (
        (tmp_path / "none.onnx", "no such file"),
        (tmp_path, "a folder"),
        (tmp_path / "pipe.onnx", "no regular file"),  # opening it would wait for ever
        (Path("/dev/zero"), "no regular file"),
    ):
        with pytest.raises(FileError, match=f"{path}: {what}; expected an ONNX file"):
            open_session(path, ["CPUExecutionProvider"])


PROPS = Metadata(
    fastloaa="0.1.0",
    task="audio-classification",
    input="waveform",
    precision="fp32",
    labels=("dog", "rain"),
    opset=20,
    front_end_kind="ast",
    sample_rate=16000,
    frames=64,
    mel_bins=128,
    mean=-4.0,
    std=4.5,
    samples=10480,
).to_props()


@pytest.fixture
def ours() -> onnx.ModelProto:
    """The least that opens: a loudness, and as many zeros as there are classes."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("waveform", "samples"), ("logits", 2), ("probabilities", 2))
    ]
    nodes = [
        helper.make_node("ReduceMean", ["waveform", "axis"], ["mean"]),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    constants = [helper.make_tensor("axis", TensorProto.INT64, [1], [1])]
    constants.append(onnx.numpy_helper.from_array(np.zeros((1, 2), np.float32), "weight"))
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(proto, PROPS)
    return proto


def refused(proto: onnx.ModelProto | bytes, path: Path) -> str:
    """The one line that opening such a file ends in."""
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    with pytest.raises(FileError) as caught:
        Classifier(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_the_least_that_opens(ours: onnx.ModelProto, tmp_path: Path) -> None:
    """What the tests below spoil is whole before."""
    onnx.save(ours, tmp_path / "model.onnx")
    assert Classifier(tmp_path / "model.onnx").metadata.labels == ("dog", "rain")


DAMAGED = [
    ("labels", "dog"),
    ("labels", "7"),
    ("labels", "[1, 2]"),
    ("labels", '{"dog": 1, "rain": 2}'),
    ("sample_rate", "fast"),
    ("sample_rate", "0"),
    ("sample_rate", "null"),
    ("sample_rate", "1e3"),
    ("samples", "-5"),
    ("frames", "[64]"),
    ("std", "0"),
    ("mean", '"low"'),
    ("input", "spectrum"),
    ("precision", "fp64"),
    ("probabilities", "tanh"),
    ("multi_label", "perhaps"),
    ("tf32", "maybe"),
    ("embedding", '"wide"'),
    ("multi_label", "true"),  # of a softmax
    ("opset", "new"),
    ("front_end_kind", "mfcc"),
]


@pytest.mark.parametrize(("name", "text"), DAMAGED, ids=map("=".join, DAMAGED))
def test_metadata_that_nobody_wrote(name: str, text: str, ours: onnx.ModelProto, tmp_path: Path) -> None:
    helper.set_model_props(ours, PROPS | {name: text})
    message = refused(ours, tmp_path / "model.onnx")
    assert "export it again" in message
    assert text.strip('[]{}"')[:3] in message or name in message


def test_metadata_of_another_graph(ours: onnx.ModelProto, tmp_path: Path) -> None:
    for changes in (
        {"labels": '["dog"]'},
        {"labels": '["a", "b", "c"]'},
        {"input": "log_mel"},
        {"embedding": "192"},
    ):
        helper.set_model_props(ours, PROPS | changes)
        assert "its graph says otherwise" in refused(ours, tmp_path / "model.onnx")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999])
def test_a_file_that_was_cut(share: float, ours: onnx.ModelProto, tmp_path: Path) -> None:
    whole = ours.SerializeToString()
    refused(whole[: int(share * len(whole))], tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "../model/../../secret.bin", "{folder}/secret.bin", "link.bin", "none.bin", "", "/dev/zero"],
)
def test_weights_outside_the_files_folder_are_not_read(location: str, ours: onnx.ModelProto, tmp_path: Path) -> None:
    """A file from elsewhere may name any path as its weights: by "..", in full, by way of a link."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100))
    (folder / "link.bin").symlink_to("../secret.bin")
    weight = ours.graph.initializer[1]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location.format(folder=tmp_path)), ("offset", "0"), ("length", "8")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    refused(ours, folder / "model.onnx")
