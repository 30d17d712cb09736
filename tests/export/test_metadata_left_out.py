"""Exported and merged files whose metadata lack a field."""

import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import onnx
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from safetensors.torch import save_file

from fastloaa import FastloaaError, adapt
from fastloaa.export import load_merged, merge, save_merged
from fastloaa.export.onnx_file import Metadata, open_session
from fastloaa.files import FileError, read_safetensors
from helpers.small import small_ast

METADATA = Metadata(
    "0.1.0", "audio-classification", "waveform", "fp32", ("a", "b"), 17, "ast", 16000, 64, 128, 0.0, 1.0
)
PROPS = asdict(METADATA) | {"samples": 10480, "onnxruntime": "1.17"}
OUTPUTS = ("logits", "probabilities")


def write_onnx(path: Path, left_out: str | None) -> None:
    ports = [make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", 2]) for n in ("waveform", *OUTPUTS)]
    nodes = [make_node("Identity", ["waveform"], [name]) for name in OUTPUTS]
    graph = make_graph(nodes, "g", ports[:1], ports[1:])
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    props = Metadata(**PROPS).to_props()
    if left_out:
        props.pop(left_out, None)  # of the embedding's width there is none
    onnx.helper.set_model_props(model, props)
    onnx.save(model, path)


@pytest.mark.parametrize("name", [None, *(field.name for field in fields(Metadata))])
def test_an_exported_file_without_a_field(name: str | None, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_onnx(tmp_path / "a.onnx", name)
    required = {field.name for field in fields(Metadata) if field.default is MISSING}
    required |= {
        "sample_rate",
        "frames",
        "mel_bins",
        "mean",
        "std",
        "samples",
    }  # of its front end
    if name in required:
        with pytest.raises(FileError, match=r"a\.onnx: an ONNX file without fastloaa's metadata"):
            open_session(tmp_path / "a.onnx", ["CPUExecutionProvider"])
    else:
        _, found = open_session(tmp_path / "a.onnx", ["CPUExecutionProvider"])
        assert found == Metadata(**{key: value for key, value in PROPS.items() if key != name})


def test_a_merged_file_without_a_field(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_merged(merge(adapt(small_ast(), bottleneck=2)), path)
    tensors, metadata = read_safetensors(path)
    for name in metadata:
        for change in ({}, {name: None}, {name: []}, {name: 5}, {name: "x"}):
            changed = {key: value for key, value in metadata.items() if key != name} | change
            save_file(tensors, path, {"fastloaa": json.dumps(changed)})
            if name == "merged_from" and change:
                load_merged(path)  # a note for people
            else:
                with pytest.raises(FastloaaError, match=r"a\.safetensors"):
                    load_merged(path)
