"""What an exported file says about itself, and clear words for what is not one."""

import sys
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fastloaa.export import Classifier
from fastloaa.export.onnx_file import Metadata, MissingPackageError, open_session, optional
from fastloaa.files import FileError

finite = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.integers(min_value=1)


@given(
    st.builds(
        Metadata,
        input=st.sampled_from(["waveform", "log_mel"]),
        precision=st.sampled_from(["fp32", "fp16", "int8"]),
        labels=st.lists(st.text()).map(tuple),
        probabilities=st.sampled_from(["softmax", "sigmoid"]),
        multi_label=st.booleans(),
        **dict.fromkeys(("sample_rate", "frames", "mel_bins", "samples", "opset"), sizes),
        **dict.fromkeys(("mean", "std"), finite),
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
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(FileError, match="no such file"):
            open_session(path, ["CPUExecutionProvider"])


def test_without_onnxruntime_the_error_says_what_to_install(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what Python does when an import is blocked
    with pytest.raises(MissingPackageError, match=r"onnxruntime is not installed .* pip install 'fastloaa\[onnx\]'"):
        Classifier(foreign)
    assert optional("json").loads("1") == 1
