"""timm's class `VisionTransformer`: ViT, DeiT, DINOv2, SigLIP and their like."""

from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from fastloaa.backbones.blocks import BlockLayout
from fastloaa.backbones.timm_model import TimmBackbone


class TimmViT(TimmBackbone):
    """A plain vision transformer with learned positions."""

    kind = "a timm VisionTransformer"
    block_type = Block
    parts = BlockLayout(scale1="ls1", drop1="drop_path1", scale2="ls2", drop2="drop_path2")

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return isinstance(model, VisionTransformer)

    @property
    def registers(self) -> int:
        return self.vit.num_reg_tokens
