"""From a trained model to something that serves."""

from fastloaa.export.classifier import Classifier, Prediction
from fastloaa.export.onnx import to_onnx
from fastloaa.export.verify import VerificationError

__all__ = ["Classifier", "Prediction", "VerificationError", "to_onnx"]
