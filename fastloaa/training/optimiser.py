"""Adam and AdamW over what trains, and their state by parameter name."""

from collections.abc import Iterator

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn
from torch.optim import Optimizer

from fastloaa.files import FileError
from fastloaa.models import AST
from fastloaa.training.recipe import OptimiserName, Recipe


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that train, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


OPTIMISERS: dict[OptimiserName, type[torch.optim.Adam]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def build_optimiser(model: AST, recipe: Recipe) -> torch.optim.Adam:
    """The recipe's, on the parameters that train; no weight decay on norms, biases, position embeddings, class tokens.

    Adam adds the decay to the gradient (L2, as AST's recipes have it), AdamW takes it off the weights. With
    `layer_decay`, groups have an `lr_scale` besides, by which the schedule's rate is multiplied: 1 for the head, which
    is the last layer, and smaller by that factor for each layer before.
    """
    names = model.backbone.no_weight_decay()
    if recipe.layer_decay is None:
        without_decay = [f"backbone.{name}" for name in names]
        groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=without_decay)
    else:
        decay, scale = recipe.weight_decay, recipe.layer_decay
        layers = param_groups_layer_decay(model.backbone, decay, no_weight_decay_list=names, layer_decay=scale)
        # The head is a layer too, the last one, and not in the backbone that timm sees.
        groups = [group | {"lr_scale": group["lr_scale"] * scale} for group in layers]
        groups += [group | {"lr_scale": 1.0} for group in param_groups_weight_decay(model.head, decay)]
    return OPTIMISERS[recipe.optimiser](groups, lr=recipe.lr, betas=recipe.betas)


def optimiser_state(model: nn.Module, optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors as `<parameter>/<key>`, e.g. `head.1.weight/exp_avg`; empty before the first step."""
    return {
        f"{name}/{key}": tensor
        for name, parameter in trainable(model)
        for key, tensor in optimiser.state.get(parameter, {}).items()
    }


def load_optimiser_state(model: nn.Module, optimiser: Optimizer, state: dict[str, Tensor]) -> None:
    """Put back what `optimiser_state` gave; moments take the device and the memory format of their parameter.

    Raises:
        FileError: it is not of this model.
    """
    parameters = dict(trainable(model))
    for entry, tensor in state.items():
        name, _, key = entry.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or tensor.shape not in (parameter.shape, ()):
            raise FileError(f"the checkpoint and the model differ in the optimiser's {entry}; start with --overwrite")
        is_moment = tensor.shape == parameter.shape and key != "step"
        optimiser.state[parameter][key] = torch.empty_like(parameter).copy_(tensor) if is_moment else tensor.clone()
