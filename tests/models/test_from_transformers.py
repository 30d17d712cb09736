"""Hugging Face transformers' AST as our own, and with our adapters in it."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastloaa import AST, LoAA, TokenGrid, adapt, load_adapter, save_adapter, trainable_parameters
from fastloaa.adapters.files import AdapterError
from fastloaa.backbones import backbone_of
from fastloaa.export import merge
from helpers.small import small_ast, wake_adapters

transformers = pytest.importorskip("transformers")

SIZES = {
    "stride 16": {},
    "stride 10": {"frequency_stride": 10, "time_stride": 10, "max_length": 100},
    "stride (8, 10), 64 mel bins": {"frequency_stride": 8, "num_mel_bins": 64, "max_length": 90},
    "wider, deeper, no bias": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "qkv_bias": False},
    "patch 8": {"patch_size": 8, "frequency_stride": 8, "time_stride": 8},
    "MLP of 100": {"intermediate_size": 100},
}


def make(seed: int = 0, **changes: object) -> "transformers.ASTForAudioClassification":
    """A small model whose weights, norms and position embedding included, are all random."""
    torch.manual_seed(seed)
    defaults = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    defaults |= {"frequency_stride": 16, "time_stride": 16, "max_length": 64, "num_labels": 5}
    model = transformers.ASTForAudioClassification(transformers.ASTConfig(**(defaults | changes)))
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "layernorm" in name and name.endswith("weight") else 0.0, std=0.2)
    return model.eval()


def inputs(model: "transformers.ASTForAudioClassification", batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, model.config.max_length, model.config.num_mel_bins)


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES)
def test_our_ast_has_its_logits(changes: dict) -> None:
    model = make(**changes)
    x = inputs(model)
    torch.testing.assert_close(AST.from_transformers(model)(x), model(x).logits, rtol=0, atol=1e-5)


def test_the_norms_epsilon_is_taken_over() -> None:
    """With tokens so small that an epsilon of 1e-6 would show."""
    model = make()
    with torch.no_grad():
        for parameter in model.audio_spectrogram_transformer.embeddings.parameters():
            parameter *= 1e-4
    ast, x = AST.from_transformers(model), inputs(model)
    torch.testing.assert_close(ast(x), model(x).logits, rtol=0, atol=1e-5)
    for module in ast.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    assert (ast(x) - model(x).logits).abs().max() > 1e-3


def test_saved_and_loaded_it_has_them_still(tmp_path: Path) -> None:
    model = make(id2label=dict(enumerate("abcde")))
    ast = AST.from_transformers(model)
    assert ast.labels == tuple("abcde")
    ast.save(tmp_path / "ast.safetensors")
    loaded, x = AST.load(tmp_path / "ast.safetensors").eval(), inputs(model)
    assert torch.equal(loaded(x), ast(x))
    assert loaded.head[0].eps == loaded.backbone.blocks[0].norm1.eps == 1e-12
    assert AST.from_transformers(make()).labels is None
    assert AST.from_transformers(make()).probabilities == "softmax"
    several = AST.from_transformers(make(problem_type="multi_label_classification"))
    assert (several.probabilities, several.multi_label) == ("sigmoid", True)


def test_dtype_and_mode_are_those_of_the_model() -> None:
    ast = AST.from_transformers(make().double().train())
    assert ast.backbone.pos_embed.dtype == torch.float64
    assert ast.training


@pytest.mark.parametrize("normalise", [True, False])
def test_the_front_end_is_that_of_the_feature_extractor(normalise: bool) -> None:
    settings = {"max_length": 64, "mean": -5.0, "std": 3.0, "do_normalize": normalise}
    extractor = transformers.ASTFeatureExtractor(**settings)
    ast = AST.from_transformers(make(), extractor)
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal(n).astype(np.float32) * 0.1 for n in (16000, 6000)]  # one is cut, one padded
    expected = extractor(clips, sampling_rate=16000, return_tensors="pt")["input_values"]
    for clip, features in zip(clips, expected, strict=True):
        # Log-mel values of the same Kaldi fbank, computed in another order.
        torch.testing.assert_close(ast.front_end(torch.from_numpy(clip)[None])[0], features, rtol=0, atol=2e-3)


def test_adapters_come_along() -> None:
    model = adapt(make(), "time", (3, 3), bottleneck=4, scale=0.7, bias=True)
    wake_adapters(model)
    ast, x = AST.from_transformers(model), inputs(model)
    torch.testing.assert_close(ast(x), model(x).logits, rtol=0, atol=1e-5)
    assert {name for name, p in ast.named_parameters() if p.requires_grad} == {
        name for name in ast.state_dict() if "loaa_" in name or name.startswith("head.")
    }
    origins = [[m.initialisation for m in either.modules() if isinstance(m, LoAA)] for either in (model, ast)]
    assert origins[0] == origins[1]


def test_adapters_come_along_as_they_are_by_now() -> None:
    model = adapt(make(), bottleneck=4)
    wake_adapters(model)
    for adapter in (module for module in model.modules() if isinstance(module, LoAA)):
        adapter.scale = 0.25
    x = inputs(model)
    torch.testing.assert_close(AST.from_transformers(model)(x), model(x).logits, rtol=0, atol=1e-5)


def test_widths_whose_ratio_is_no_float() -> None:
    model = make(hidden_size=120, intermediate_size=507)  # 120 * (507 / 120) is less than 507
    x = inputs(model)
    torch.testing.assert_close(AST.from_transformers(model)(x), model(x).logits, rtol=0, atol=1e-5)


def test_what_needs_our_ast_says_how_to_get_one() -> None:
    with pytest.raises(TypeError, match=r"AST\.from_transformers\(model\) makes fastloaa's own AST"):
        merge(adapt(make(), bottleneck=4))


def test_what_cannot_be_converted_is_said() -> None:
    cases = [
        (nn.Linear(2, 2), TypeError, "expected transformers' ASTForAudioClassification, got Linear"),
        (make().audio_spectrogram_transformer, TypeError, "got ASTModel"),
        (make(hidden_act="relu"), ValueError, "the model has 'relu'"),
        (make(num_labels=0), ValueError, "no classes"),
    ]
    for model, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            AST.from_transformers(model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [SIZES["stride 16"], SIZES["stride 10"], SIZES["patch 8"]])
def test_adapters_do_in_it_what_they_do_in_our_ast(changes: dict) -> None:
    model = make(**changes)
    ast, x = AST.from_transformers(model), inputs(model)
    plain = model(x).logits
    assert backbone_of(model).grid == ast.grid
    for either in (model, ast):
        torch.manual_seed(2)  # the same adapters in both
        wake_adapters(adapt(either, bottleneck=4))
    torch.testing.assert_close(model(x).logits, ast(x), rtol=0, atol=1e-5)
    assert (model(x).logits - plain).abs().max() > 0.1
    assert trainable_parameters(model) == trainable_parameters(ast)


@pytest.mark.parametrize(("attn", "ffn"), [("time", "freq"), (None, (3, 3)), (None, None)])
def test_starts_as_it_was_and_a_step_moves_what_is_trainable(attn: object, ffn: object) -> None:
    model = make()
    x = inputs(model)
    plain = model(x).logits
    assert adapt(model, attn, ffn, bottleneck=4) is model  # type: ignore[arg-type]
    torch.testing.assert_close(model(x).logits, plain)
    wake_adapters(model.train())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(x, labels=torch.tensor([0, 1, 2])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("loaa_" in name or name.startswith("classifier."))
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0, name
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_adapters_alone_are_saved_and_loaded(tmp_path: Path) -> None:
    path, model = tmp_path / "a.safetensors", adapt(make(), bottleneck=4, normed_input=False)
    wake_adapters(model)
    save_adapter(model, path)
    other, x = make(), inputs(model)
    assert load_adapter(other, path) is other
    assert torch.equal(other(x).logits, model(x).logits)
    with pytest.raises(AdapterError, match="other frozen weights"):
        load_adapter(make(seed=1), path)
    with pytest.raises(AdapterError, match="freq_bins=8, this model has freq_bins=4"):
        load_adapter(make(num_mel_bins=64), path)
    with pytest.raises(ValueError, match="has been adapted already"):
        adapt(other)


def checkpoint_layers(model: "transformers.ASTForAudioClassification") -> None:
    """By transformers' own method, which it calls otherwise since 5.9."""
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


def test_transformers_own_switches_go_on_working() -> None:
    """Hidden states and gradient checkpointing find their layers by class and by attribute."""
    early, late = make(), make()
    checkpoint_layers(early)
    for model in (early, late):
        torch.manual_seed(2)
        wake_adapters(adapt(model, bottleneck=4))
    x = inputs(late)
    assert len(late(x, output_hidden_states=True).hidden_states) == 3
    plain = copy.deepcopy(late)
    checkpoint_layers(late)
    gradients = []
    for model in (plain, early, late):
        model.train()(x).logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])
    assert all(layer.gradient_checkpointing for layer in backbone_of(early).blocks)


def test_the_grid_is_the_configurations() -> None:
    model = adapt(make(frequency_stride=10, time_stride=12, max_length=100), bottleneck=4)
    assert backbone_of(model).grid == TokenGrid(12, 8, 2)
    assert {module.freq_bins for module in model.modules() if isinstance(module, LoAA)} == {12}


def test_another_models_adapters_are_refused(tmp_path: Path) -> None:
    save_adapter(adapt(small_ast(), bottleneck=4), tmp_path / "a.safetensors")
    with pytest.raises(AdapterError):
        load_adapter(make(), tmp_path / "a.safetensors")
