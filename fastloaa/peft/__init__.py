"""LoAA as a method of Hugging Face peft; needs the extra `peft`.

`get_peft_model(model, LoAAConfig(attn="time", ffn="freq", bottleneck=36))` adapts what `fastloaa.adapt` does. To load a
saved adapter import this first: peft knows the method from then on.
"""

from fastloaa.peft.available import check_available

check_available()

from fastloaa.peft.config import LoAAConfig
from fastloaa.peft.convert import from_peft, to_peft
from fastloaa.peft.layer import NamedAdapters
from fastloaa.peft.registration import register
from fastloaa.peft.tuner import LoAAModel

register(LoAAConfig, LoAAModel)

__all__ = ["LoAAConfig", "LoAAModel", "NamedAdapters", "from_peft", "to_peft"]
