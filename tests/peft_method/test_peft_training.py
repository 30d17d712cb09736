"""Training by peft's means: half precision, gradient checkpointing, transformers' Trainer."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("peft")
pytest.importorskip("transformers")

import transformers
from peft import PeftModel, get_peft_model

from fastloaa.peft import LoAAConfig
from helpers.peft_models import FAMILIES, family, logits, transformers_ast, woken


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_in_single_beside_a_model_in_half_precision(name: str) -> None:
    model, x = family(name)
    model.bfloat16()
    single = woken(get_peft_model(copy.deepcopy(model), LoAAConfig(bottleneck=6))).eval()
    dtypes = {p.dtype for n, p in single.named_parameters() if "loaa_adapters" in n}
    assert dtypes == {torch.float32}  # as peft has it for all its methods
    half = get_peft_model(copy.deepcopy(model), LoAAConfig(bottleneck=6), autocast_adapter_dtype=False).eval()
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    half.load_state_dict(single.state_dict())
    exact = copy.deepcopy(single).double()
    expected = logits(exact, x)
    assert logits(single, x.bfloat16()).dtype == torch.bfloat16
    assert relative(logits(exact.base_model.model, x), expected) == 0
    lost = relative(logits(half, x.bfloat16()), expected)
    assert relative(logits(single, x.bfloat16()), expected) < 2 * lost < 0.1
    logits(single.train(), x.bfloat16()).float().sum().backward()
    assert all(p.grad is not None for p in single.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", FAMILIES)
def test_autocast(name: str) -> None:
    model, x = family(name)
    adapted = woken(get_peft_model(model.float(), LoAAConfig(bottleneck=6))).eval()
    expected = logits(copy.deepcopy(adapted).double(), x)
    with torch.autocast("cpu", torch.bfloat16):
        found = logits(adapted, x.float())
    found.float().sum().backward()
    assert relative(found, expected) < 0.1
    grads = [p.grad for p in adapted.parameters() if p.requires_grad]
    assert all(grad is not None and grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads)


def checkpointed(model: Any) -> None:
    if hasattr(model, "gradient_checkpointing_enable"):
        model.gradient_checkpointing_enable()
    else:
        getattr(model, "backbone", model).set_grad_checkpointing(True)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    model, x = family(name)
    first = woken(get_peft_model(model, LoAAConfig(bottleneck=6))).train()
    second = copy.deepcopy(first)
    checkpointed(second.get_base_model())
    runs: list[int] = []
    block = second.get_base_model().get_submodule(second.targeted_module_names[0])
    block.loaa_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    for each in (first, second):
        logits(each, x).square().sum().backward()
    assert len(runs) == 2  # once more in the backward pass
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad)


def test_compiled_without_a_break() -> None:
    model, x = family("AST")
    adapted = woken(get_peft_model(model, LoAAConfig(bottleneck=6))).eval()
    compiled = torch.compile(adapted.get_base_model(), backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), logits(adapted, x))


class Clips(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"input_values": torch.randn(64, 48, generator=generator), "labels": index % 5}


def trainer(model: nn.Module, folder: Path, steps: int) -> Any:
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=steps,
        save_steps=2,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return transformers.Trainer(model, arguments, train_dataset=Clips())


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_transformers_trainer_trains_saves_and_resumes(tmp_path: Path) -> None:
    plain = transformers_ast()

    def fresh() -> Any:
        torch.manual_seed(3)
        return get_peft_model(copy.deepcopy(plain), LoAAConfig(bottleneck=6))

    whole = fresh()
    before = weights(whole)
    trainer(whole, tmp_path / "whole", 4).train()
    after = weights(whole)
    assert all((after[name] - before[name]).abs().max() > 0 for name in before)
    saved = tmp_path / "whole" / "checkpoint-4"
    assert (saved / "adapter_model.safetensors").is_file()
    assert not (saved / "model.safetensors").exists()  # adapters and head alone
    x = torch.stack([Clips()[index]["input_values"] for index in range(2)])
    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), saved)
    assert torch.equal(logits(loaded, x), logits(whole.eval(), x))

    trainer(fresh(), tmp_path / "halves", 2).train()
    resumed = woken(fresh())  # the checkpoint says otherwise
    trainer(resumed, tmp_path / "halves", 4).train(resume_from_checkpoint=True)
    for name, weight in weights(resumed).items():
        torch.testing.assert_close(weight, after[name])
