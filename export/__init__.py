"""From a trained model to something that serves.

The public names are imported when they are first used: a `Classifier` needs none of the models.
"""

from typing import TYPE_CHECKING

from fastloaa.lazy import imported_when_used

if TYPE_CHECKING:  # the same names as in `_MODULES`, for type checkers and editors
    from fastloaa.export.bundle.write import write_bundle
    from fastloaa.export.classifier import Classifier, Prediction
    from fastloaa.export.merging.file import load_merged, save_merged
    from fastloaa.export.merging.merge import MergeError, merge, merged_from
    from fastloaa.export.onnx import ExportError, to_onnx
    from fastloaa.export.verify import Report, VerificationError
    from fastloaa.export.windows import Window

__all__ = [
    "Classifier",
    "ExportError",
    "MergeError",
    "Prediction",
    "Report",
    "VerificationError",
    "Window",
    "load_merged",
    "merge",
    "merged_from",
    "save_merged",
    "to_onnx",
    "write_bundle",
]

_MODULES = {
    "Classifier": "fastloaa.export.classifier",
    "ExportError": "fastloaa.export.onnx",
    "MergeError": "fastloaa.export.merging.merge",
    "Prediction": "fastloaa.export.classifier",
    "Report": "fastloaa.export.verify",
    "VerificationError": "fastloaa.export.verify",
    "Window": "fastloaa.export.windows",
    "load_merged": "fastloaa.export.merging.file",
    "merge": "fastloaa.export.merging.merge",
    "merged_from": "fastloaa.export.merging.merge",
    "save_merged": "fastloaa.export.merging.file",
    "to_onnx": "fastloaa.export.onnx",
    "write_bundle": "fastloaa.export.bundle.write",
}

__getattr__, __dir__ = imported_when_used(__name__, _MODULES)
