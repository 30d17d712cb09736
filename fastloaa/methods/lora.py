"""LoRA (Hu et al., ICLR 2022), by Hugging Face peft."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from timm.layers import Attention, Mlp

from fastloaa.backbones import backbone_of
from fastloaa.errors import ArgumentTypeError
from fastloaa.extras import needs
from fastloaa.inputs.options import OptionError, check_at_least, check_fraction, check_types
from fastloaa.methods.inserted import InsertedMethod
from fastloaa.models import AST

_PATHS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


@dataclass(frozen=True)
class LoRAMethod(InsertedMethod):
    """Low-rank updates of the Linears in timm's blocks; needs the extra `peft`.

    Attributes:
        rank, alpha: the update is alpha / rank times the product of its two matrices; alpha None: alpha = rank.
        dropout: of the update's input, in training.
        targets: which Linears; "qkv" is query, key and value in one, as timm has them.
    """

    name: ClassVar[str] = "lora"

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[Literal["qkv", "proj", "fc1", "fc2"], ...] = ("qkv", "proj")

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, "rank", 1)
        check_fraction(self, "dropout")
        if not self.targets:
            raise OptionError(f"targets names at least one of {', '.join(_PATHS)}, got none")
        needs("peft")

    def insert(self, model: AST) -> None:
        from peft import LoraConfig, inject_adapter_in_model  # optional, and takes seconds to import

        for index, block in enumerate(backbone_of(model).blocks):
            for target in self.targets:
                part = getattr(block, _PATHS[target].partition(".")[0])
                if type(part) not in (Attention, Mlp):  # timm's EvaAttention reads the weights past peft's modules
                    raise ArgumentTypeError(
                        f"the method lora knows timm's Attention and Mlp, block {index} has {type(part).__name__}; "
                        f"choose a backbone made of those, or another method"
                    )
        # Whole paths, since "proj" alone would be the patch embedding's as well.
        paths = "|".join(_PATHS[target].replace(".", r"\.") for target in self.targets)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=rf"blocks\.\d+\.({paths})",
        )
        inject_adapter_in_model(config, model.backbone)
