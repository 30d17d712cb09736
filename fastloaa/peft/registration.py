"""The method's entry in peft's lists."""

from typing import Any

from peft.utils import PeftType, register_peft_method

from fastloaa.peft.layer import PREFIX

NAME = "LOAA"


def register(config: type, model: type) -> None:
    """Add LoAA to peft's methods.

    peft has `register_peft_method` for it, which asks for a member of the enumeration of the methods that it brings
    itself, and Python closes an enumeration with its class.
    """
    if NAME not in PeftType.__members__:
        member: Any = str.__new__(PeftType, NAME)
        member._name_, member._value_, member._sort_order_ = NAME, NAME, len(PeftType.__members__)
        type.__setattr__(PeftType, NAME, member)
        PeftType._member_names_.append(NAME)
        PeftType._member_map_[NAME] = PeftType._value2member_map_[NAME] = member
    register_peft_method(name=NAME.lower(), config_cls=config, model_cls=model, prefix=PREFIX)
