"""LoAA as a method of Hugging Face peft; needs the extra `peft`.

`get_peft_model(model, LoAAConfig(attn="time", ffn="freq", bottleneck=36))` adapts what `fastloaa.adapt` does. To load a
saved adapter import this first: peft knows the method from then on.
"""

from fastloaa.peft.available import check_available

check_available()

from fastloaa.peft.config import LoAAConfig  # noqa: E402 (without peft the line above has said what to install)
from fastloaa.peft.convert import from_peft, to_peft  # noqa: E402
from fastloaa.peft.layer import NamedAdapters  # noqa: E402
from fastloaa.peft.registration import register  # noqa: E402
from fastloaa.peft.tuner import LoAAModel  # noqa: E402

register(LoAAConfig, LoAAModel)

__all__ = ["LoAAConfig", "LoAAModel", "NamedAdapters", "from_peft", "to_peft"]
