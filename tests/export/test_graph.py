"""Inference: what the exporter and the verification run."""

import torch
from small import small_ast, wake_adapters

from fastloaa import LoAA, adapt
from fastloaa.export.graph import Inference


def test_is_a_float32_copy_in_evaluation_mode() -> None:
    model = adapt(small_ast(), bottleneck=4, dropout=0.5).bfloat16().train()
    copy = Inference(model, waveform=True, backend="reference")
    assert {parameter.dtype for parameter in copy.parameters()} == {torch.float32}
    assert not any(module.training for module in copy.modules())
    assert {module.backend for module in copy.modules() if isinstance(module, LoAA)} == {"reference"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(module.training for module in model.modules())
    assert {module.backend for module in model.modules() if isinstance(module, LoAA)} == {"auto"}


@torch.no_grad()
def test_from_waveform_or_from_log_mel() -> None:
    model = adapt(small_ast(), bottleneck=4)
    wake_adapters(model)
    waveform = torch.randn(2, 8000)
    log_mel = model.front_end(waveform)
    from_waveform = Inference(model, waveform=True, backend="torch")(waveform)
    from_log_mel = Inference(model, waveform=False, backend="torch")(log_mel)
    expected = model(log_mel)
    for logits, probabilities in (from_waveform, from_log_mel):
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(probabilities, expected.exp() / expected.exp().sum(1, keepdim=True))
