"""Recipes and the loop that trains by them."""

from fastloaa.methods import OptionError
from fastloaa.training.errors import RunError, TrainingError
from fastloaa.training.evaluation import Evaluation, evaluate
from fastloaa.training.recipe import Recipe
from fastloaa.training.run import Result, load_run, train

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
