"""Somebody else's training loop around an adapted model: transformers' Trainer and Lightning, in the examples."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastloaa import LoAA, adapt, load_adapter
from fastloaa.adapters.files import adapter_state
from fastloaa.files import FileError
from helpers.small import SMALL, wake_adapters
from helpers.tone_set import write_tones

transformers = pytest.importorskip("transformers", reason="needs pip install 'fastloaa[transformers]'")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "sounds")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AST of transformers with its feature extractor, as from the hub; of other classes."""
    folder = tmp_path_factory.mktemp("pretrained")
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    config = transformers.ASTConfig(max_length=32, frequency_stride=16, time_stride=16, num_labels=5, **sizes)
    torch.manual_seed(0)
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=32).save_pretrained(folder)
    return folder


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    module = __import__(name)
    assert len([line for line in inspect.getsource(module).splitlines() if line]) < 40
    return module


def fresh(pretrained: Path, classes: int = 3) -> Any:
    labels = dict(enumerate("abcde"[:classes]))
    return transformers.ASTForAudioClassification.from_pretrained(
        pretrained, id2label=labels, ignore_mismatched_sizes=True
    )


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])


def assert_trained(model: nn.Module) -> None:
    """Beside every block."""
    adapters = [module for module in model.modules() if isinstance(module, LoAA)]
    assert len(adapters) == 4
    assert all(adapter.up.weight.abs().max() > 0 for adapter in adapters)


QUIET = {"use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False}


def test_transformers_trainer_goes_on(
    sounds: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_trainer = example("hf_trainer", monkeypatch)

    def run(out: str, epochs: int) -> Any:
        options: dict[str, Any] = {"num_train_epochs": epochs, "lr_scheduler_type": "constant", **QUIET}
        return hf_trainer.main(str(sounds), str(tmp_path / out), str(pretrained), **options)

    whole = run("whole", 2)
    assert_trained(whole)
    run("halves", 1)
    assert_equal(adapter_state(run("halves", 2)), adapter_state(whole))
    file = tmp_path / "halves" / "adapter.safetensors"
    assert_equal(adapter_state(load_adapter(fresh(pretrained), file)), adapter_state(whole))


class Clips(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"input_values": torch.randn(32, 128, generator=generator), "labels": index % 3}


def test_the_best_checkpoint_comes_back(pretrained: Path, tmp_path: Path) -> None:
    """Of two epochs the first is the best, the rate being so high that the second is worse."""
    from fastloaa.callbacks import AdapterCheckpoints

    seen: list[dict[str, Tensor]] = []

    class Watch(transformers.TrainerCallback):
        def on_save(self, *_: Any, model: nn.Module, **__: Any) -> None:
            seen.append({name: tensor.clone() for name, tensor in adapter_state(model).items()})

    model = adapt(fresh(pretrained), bottleneck=4)
    each = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, metric_for_best_model="step", greater_is_better=False, report_to=[],
        learning_rate=0.01, **each, **QUIET,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=Clips(),
        eval_dataset=Clips(),
        compute_metrics=lambda _: {"step": trainer.state.global_step},
        callbacks=[Watch(), AdapterCheckpoints()],
    )
    trainer.train()
    assert_equal(adapter_state(model), seen[0])
    with pytest.raises(AssertionError):
        assert_equal(seen[0], seen[1])

    (tmp_path / "checkpoint-1" / "adapter.safetensors").unlink()
    trainer.remove_callback(Watch)
    with pytest.raises(FileError, match="cannot be brought back; resume from one that a Trainer with AdapterCh"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_lightning_goes_on(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="needs pip install lightning")
    module = example("lightning_module", monkeypatch)
    small = {"backbone": "deit_tiny_distilled_patch16_224", "backbone_options": SMALL, "weights": None, "frames": 32}

    def run(out: str, epochs: int) -> nn.Module:
        return module.main(str(sounds), tmp_path / out, epochs, **small)

    whole = run("whole", 2)
    assert_trained(whole)
    run("halves", 1)
    assert_equal(adapter_state(run("halves", 2)), adapter_state(whole))
    saved = torch.load(tmp_path / "halves" / "last.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == {f"model.{name}" for name in adapter_state(whole)}


def test_the_feature_extractors_features_go_into_our_ast(pretrained: Path) -> None:
    from fastloaa import AST

    extractor = transformers.ASTFeatureExtractor.from_pretrained(pretrained)
    theirs = fresh(pretrained).eval()
    ours = AST.from_transformers(theirs, extractor)
    waveforms = [(torch.randn(length) * 0.1).numpy() for length in (3000, 9000)]
    features = extractor(waveforms, sampling_rate=16000, return_tensors="pt")["input_values"]
    torch.testing.assert_close(ours(features), theirs(features).logits, rtol=0, atol=1e-5)
    expected = theirs(features).logits
    for waveform, logits in zip(waveforms, expected, strict=True):
        # Log-mel values of the same Kaldi fbank, computed in another order.
        own = ours(ours.front_end(torch.from_numpy(waveform)[None]))[0]
        torch.testing.assert_close(own, logits, rtol=0, atol=2e-3)


def test_the_pipeline_answers_as_the_adapted_model(pretrained: Path) -> None:
    extractor = transformers.ASTFeatureExtractor.from_pretrained(pretrained)
    plain = fresh(pretrained).eval()
    adapted = adapt(fresh(pretrained), bottleneck=4).eval()
    wake_adapters(adapted)
    pipe = transformers.pipeline("audio-classification", model=adapted, feature_extractor=extractor, device="cpu")
    waveform = (torch.randn(9000) * 0.1).numpy()
    features = extractor(waveform, sampling_rate=16000, return_tensors="pt")["input_values"]
    found = {answer["label"]: answer["score"] for answer in pipe(waveform, top_k=None)}
    probabilities = adapted(features).logits.softmax(1)[0]
    assert found == pytest.approx({name: probabilities[i].item() for i, name in adapted.config.id2label.items()})
    assert (probabilities - plain(features).logits.softmax(1)[0]).abs().max() > 1e-3
