"""What people give, checked: arguments of Python calls, and the options of recipes and command lines."""

from fastloaa.inputs.arguments import as_tensor, check_module, check_path, class_names, number, whole

__all__ = ["as_tensor", "check_module", "check_path", "class_names", "number", "whole"]
