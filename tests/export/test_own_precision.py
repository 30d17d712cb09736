"""A precision of one's own: the entry of docs/extending.md, written, checked and opened."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fastloaa.errors import ArgumentError
from fastloaa.export import Classifier, to_onnx
from fastloaa.files import FileError
from helpers import extending
from helpers.small import small_ast
from helpers.versions import skip_before


def test_files_are_written_in_it(tmp_path: Path) -> None:
    skip_before("onnxruntime", "1.32", "turns a Gemm's weights over, leaves their shape, and finds the two at odds")
    torch.manual_seed(0)
    model, clips = small_ast(), [torch.randn(20000) for _ in range(2)]
    path, plain = tmp_path / "model.onnx", tmp_path / "plain.onnx"
    with extending.example("A precision to export in"):
        with pytest.raises(ArgumentError, match="batch-int8 is checked on recordings; give some"):
            to_onnx(model, path, precision="batch-int8")
        report = to_onnx(model, path, precision="batch-int8", calibration=clips, force=True)
        classifier = Classifier(path)
    assert report.precision == classifier.metadata.precision == "batch-int8"
    assert report.recordings == 2
    assert 1e-5 < report.difference < 0.1
    to_onnx(model, plain)
    operators = [{node.op_type for node in onnx.load(file).graph.node} for file in (path, plain)]
    assert operators[0] - operators[1] >= {"DynamicQuantizeLinear", "MatMulInteger"}
    weights = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 2}
    assert onnx.helper.np_dtype_to_tensor_dtype(np.dtype("int8")) in weights
    with pytest.raises(FileError, match=r"precision is one of fp32, fp16, int8, int8-dynamic; got 'batch-int8'"):
        Classifier(path)
    with pytest.raises(ArgumentError, match=r"precision is one of fp32, fp16, int8, int8-dynamic; got 'batch-int8'"):
        to_onnx(model, path, precision="batch-int8", calibration=clips)
