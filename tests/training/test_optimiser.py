"""What AdamW is given, and its state by name."""

from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from fastloaa import adapt
from fastloaa.training.optimiser import build_optimiser, load_optimiser_state, optimiser_state
from helpers.small import SMALL, small_ast
from helpers.tone_set import small_recipe

RECIPE = small_recipe(Path("unused"), lr=1e-3, weight_decay=0.25, betas=[0.8, 0.9])


@pytest.mark.parametrize("frozen", [False, True])
def test_weight_decay_is_for_matrices_and_kernels(frozen: bool) -> None:
    model = adapt(small_ast(), bias=True) if frozen else small_ast()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decay = {
        names[parameter]: group["weight_decay"]
        for group in build_optimiser(model, RECIPE).param_groups
        for parameter in group["params"]
    }
    matrices = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    assert decay.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, value in decay.items() if value} == matrices & decay.keys()
    assert set(decay.values()) == {0.0, 0.25}


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_options(name: str, kind: type[torch.optim.Optimizer]) -> None:
    optimiser = build_optimiser(small_ast(), RECIPE.replace(optimiser=name))
    assert type(optimiser) is kind
    assert {(group["lr"], group["betas"]) for group in optimiser.param_groups} == {(1e-3, (0.8, 0.9))}


def test_state_comes_back_bit_for_bit() -> None:
    def step(model: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        optimiser.zero_grad()
        model(torch.randn(2, 64, 128)).square().sum().backward()
        optimiser.step()

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return adapt(small_ast(), bottleneck=4)

    model = fresh()
    optimiser = build_optimiser(model, RECIPE)
    assert optimiser_state(model, optimiser) == {}
    for seed in range(3):
        step(model, optimiser, seed)
    state = {name: tensor.clone().contiguous() for name, tensor in optimiser_state(model, optimiser).items()}
    assert "backbone.blocks.0.loaa_attn.down.weight/exp_avg_sq" in state

    resumed = fresh()
    resumed.load_state_dict(model.state_dict())
    other = build_optimiser(resumed, RECIPE)
    load_optimiser_state(resumed, other, state)
    for name, tensor in state.items():
        assert torch.equal(optimiser_state(resumed, other)[name], tensor)
        assert optimiser_state(resumed, other)[name].data_ptr() != tensor.data_ptr()
    for seed in range(3, 6):
        step(model, optimiser, seed)
        step(resumed, other, seed)
    for left, right in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("method", ["full", "loaa"])
def test_the_rate_falls_layer_by_layer_towards_the_input(method: str) -> None:
    model = small_ast() if method == "full" else adapt(small_ast())
    recipe = RECIPE.replace(layer_decay=0.5)
    optimiser = build_optimiser(model, recipe)
    groups = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    trains = {name: groups[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert len(groups) == len(trains)
    for name, group in trains.items():
        # As timm has it for its models with a head of their own: what is behind the last block counts to it.
        steps = {"backbone.blocks.0": 2, "backbone.blocks.1": 1, "backbone.norm": 1, "head": 0}
        assert group["lr_scale"] == 0.5 ** next((n for start, n in steps.items() if name.startswith(start)), 3), name
    if method == "full":
        theirs = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, **SMALL)
        named = {id(p): name for name, p in theirs.named_parameters()}
        for group in param_groups_layer_decay(theirs, layer_decay=0.5):
            for parameter in group["params"]:
                name = named[id(parameter)]
                ours = "head.1.weight" if name.startswith("head") else f"backbone.{name}"
                assert trains[ours]["lr_scale"] == group["lr_scale"], name
    plain = {id(p): g["weight_decay"] for g in build_optimiser(model, RECIPE).param_groups for p in g["params"]}
    assert {key: group["weight_decay"] for key, group in groups.items()} == plain
