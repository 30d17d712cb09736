"""From a trained model to something that serves."""

from fastloaa.export.bundle import write_bundle
from fastloaa.export.classifier import Classifier, Prediction
from fastloaa.export.merging.file import load_merged, save_merged
from fastloaa.export.merging.merge import MergeError, merge, merged_from
from fastloaa.export.onnx import ExportError, to_onnx
from fastloaa.export.verify import Report, VerificationError

__all__ = [
    "Classifier",
    "ExportError",
    "MergeError",
    "Prediction",
    "Report",
    "VerificationError",
    "load_merged",
    "merge",
    "merged_from",
    "save_merged",
    "to_onnx",
    "write_bundle",
]
