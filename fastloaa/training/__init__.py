"""Recipes and the loop that trains by them."""

from fastloaa.extras import needs

needs("accelerate", "matplotlib", "rich", "torchmetrics", "yaml")

from fastloaa.methods import OptionError
from fastloaa.training.errors import RunError, TrainingError
from fastloaa.training.evaluation import evaluate
from fastloaa.training.recipe import Recipe
from fastloaa.training.result import Result
from fastloaa.training.run import load_run, train
from fastloaa.training.scores import Evaluation

__all__ = [
    "Evaluation",
    "OptionError",
    "Recipe",
    "Result",
    "RunError",
    "TrainingError",
    "evaluate",
    "load_run",
    "train",
]
