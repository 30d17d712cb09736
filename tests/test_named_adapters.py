"""Several tasks on one model: what each answers, against models that have one each."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")

from fastloaa import LoAA, adapt, model_adapters, name_adapters, save_adapter
from fastloaa.adapters.files import AdapterError
from helpers.peft_models import FAMILIES, family, logits, woken

NAMES = ("birds", "speech", "rooms")
OPTIONS: list[dict[str, Any]] = [{"attn": "time"}, {"attn": None, "ffn": (3, 3)}, {"ffn": None, "scale": 0.5}]


def three(name: str) -> tuple[nn.Module, dict[str, nn.Module], Tensor]:
    """A plain model, three adapted ones on it, a batch of four."""
    model, x = family(name)
    adapted = {
        task: woken(adapt(copy.deepcopy(model), bottleneck=4 + seed, **options), seed).eval()
        for seed, (task, options) in enumerate(zip(NAMES, OPTIONS, strict=True))
    }
    return model, adapted, torch.cat((x, x.flip(0) * 0.7))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_answers_as_alone(name: str, tmp_path: Path) -> None:
    plain, adapted, x = three(name)
    sources: dict[str, Any] = dict(adapted)
    save_adapter(adapted["birds"], tmp_path / "birds.safetensors")
    sources["birds"] = tmp_path / "birds.safetensors"
    expected = {task: logits(one, x) for task, one in adapted.items()} | {None: logits(plain, x)}
    model = name_adapters(copy.deepcopy(plain), sources)
    assert not [p for p in model.parameters() if p.requires_grad]
    for task, answer in expected.items():
        with model_adapters(model, task):
            assert torch.equal(logits(model, x), answer)
    answers = torch.stack(list(expected.values()))
    assert (answers[:, None] - answers).abs().amax((2, 3)).fill_diagonal_(1).min() > 0.05  # or it would show nothing
    for tasks in (["rooms", "birds", None, "rooms"], ["speech"] * 4, list(expected)):
        with model_adapters(model, tasks):
            mixed = logits(model, x)
        rows = [expected[task][row] for row, task in enumerate(tasks)]
        torch.testing.assert_close(mixed, torch.stack(rows))


def test_threads_do_not_see_each_others_choice() -> None:
    plain, adapted, x = three("AST")
    expected = {task: logits(one, x) for task, one in adapted.items()}
    model = name_adapters(plain, adapted)
    together = threading.Barrier(len(NAMES))

    def answer(task: str) -> list[Tensor]:
        found = []
        with torch.no_grad(), model_adapters(model, task):
            for _ in range(5):
                together.wait(timeout=60)
                found.append(model(x))
        return found

    with model_adapters(model, "birds"), ThreadPoolExecutor(len(NAMES)) as threads:
        for task, found in zip(NAMES, threads.map(answer, NAMES), strict=True):
            assert all(torch.equal(each, expected[task]) for each in found)
        with pytest.raises(ValueError, match=r"say in this thread which one is meant: with model_adapters"):
            threads.submit(model, x).result()
        assert torch.equal(model(x), expected["birds"])


def test_choices_nest_and_end() -> None:
    plain, adapted, x = three("timm ViT")
    expected = {task: logits(one, x) for task, one in adapted.items()}
    model = name_adapters(plain, adapted)
    other = copy.deepcopy(model)
    with model_adapters(model, "birds"):
        with pytest.raises(RuntimeError, match="out of the way"), model_adapters(model, "speech"):
            raise RuntimeError("out of the way")
        with model_adapters(model, "rooms"):
            assert torch.equal(logits(model, x), expected["rooms"])
        assert torch.equal(logits(model, x), expected["birds"])
        with pytest.raises(ValueError, match="say in this thread"):
            other(x)  # a copy is a model of its own
        with model_adapters(other, "speech"):
            assert torch.equal(logits(other, x), expected["speech"])
            assert torch.equal(logits(model, x), expected["birds"])
    with pytest.raises(ValueError, match="birds, speech, rooms; say in this thread which"):
        model(x)


def test_one_choice_for_calls_of_every_mode() -> None:
    plain, adapted, x = three("timm ViT")
    model = name_adapters(plain, adapted)
    with model_adapters(model, ["birds", "speech"] * 2):
        with torch.inference_mode():
            first = logits(model, x)
        x.requires_grad_()
        logits(model, x).sum().backward()
        torch.testing.assert_close(logits(model, x), first)
    assert x.grad is not None


def test_another_grid() -> None:
    plain, adapted, _ = three("timm ViT")
    model: Any = name_adapters(copy.deepcopy(plain), adapted)
    x = torch.randn(2, 1, 128, 64, dtype=torch.float64)
    alone: Any = adapted["speech"]
    for each in (model, alone):
        each.set_input_size((128, 64))
    with model_adapters(model, ["speech", "birds"]):
        found = logits(model, x)
    torch.testing.assert_close(found[:1], logits(alone, x)[:1])


def test_what_does_not_fit(tmp_path: Path) -> None:
    plain, adapted, x = three("timm ViT")
    model = name_adapters(copy.deepcopy(plain), adapted)
    with pytest.raises(ValueError, match="no adapter 'owls'; the model has birds, speech, rooms"):
        model_adapters(model, ["birds", "owls"]).__enter__()
    with (
        pytest.raises(ValueError, match="3 names of adapters were given for a batch of 4"),
        model_adapters(model, NAMES),
    ):
        model(x)
    with pytest.raises(ValueError, match="no adapters by name"):
        model_adapters(plain, "birds").__enter__()
    with pytest.raises(ValueError, match="has been adapted already"):
        name_adapters(model, adapted)
    with pytest.raises(ValueError, match="has been adapted already"):
        adapt(model)
    for names in ({"a.b": adapted["birds"]}, {"": adapted["birds"]}, {"train": adapted["birds"]}, {}):
        with pytest.raises(ValueError, match="words without a dot"):
            name_adapters(copy.deepcopy(plain), names)
    with pytest.raises(ValueError, match="normed_input"):
        name_adapters(
            copy.deepcopy(plain), {"one": adapted["birds"], "two": adapt(copy.deepcopy(plain), normed_input=False)}
        )
    with pytest.raises(ValueError, match="mine has no adapters"):
        name_adapters(copy.deepcopy(plain), {"mine": plain})
    with pytest.raises(AdapterError, match="beside other frozen weights"):
        name_adapters(woken(copy.deepcopy(plain)), adapted)
    assert not [module for module in plain.modules() if isinstance(module, LoAA)]

    bigger: Any = copy.deepcopy(plain)
    bigger.reset_classifier(9)
    bigger.double()
    save_adapter(adapt(bigger, bottleneck=4), tmp_path / "nine")
    two = name_adapters(copy.deepcopy(plain), {"five": adapted["birds"], "nine": bigger})
    with model_adapters(two, "nine"):
        assert logits(two, x).shape == (4, 9)
    with model_adapters(two, ["five", "nine"] * 2), pytest.raises(ValueError, match="ask the model once for each"):
        two(x)


def test_the_page_about_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "merging.md").read_text(encoding="utf-8")
    code = page.partition("## Several tasks on one model")[2].partition("```python\n")[2].partition("```")[0]
    plain, adapted, x = three("AST")
    for task in ("birds", "speech"):
        save_adapter(adapted[task], tmp_path / f"{task}.safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"backbone": copy.deepcopy(plain), "log_mel": x}
    exec(code, names)
    rows = [(adapted[task] if task else plain)(x)[row] for row, task in enumerate(["birds", "speech", "birds", None])]
    torch.testing.assert_close(names["logits"], torch.stack(rows))
