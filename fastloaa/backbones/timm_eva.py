"""timm's class `Eva`: DINOv3, EVA-02, Perception Encoders and the ViTs with rotary positions."""

from timm.models.eva import Eva, EvaBlock
from torch import nn

from fastloaa.backbones.blocks import BlockLayout
from fastloaa.backbones.timm_model import TimmBackbone


class TimmEva(TimmBackbone):
    """A vision transformer with rotary positions, which its blocks are given with the tokens, or learned ones."""

    kind = "a timm Eva (DINOv3, EVA-02, PE, RoPE ViTs)"
    block_type = EvaBlock
    parts = BlockLayout(scale1="gamma_1", drop1="drop_path1", scale2="gamma_2", drop2="drop_path2")

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return isinstance(model, Eva)

    @property
    def registers(self) -> int:
        return 0 if self.vit.reg_token is None else self.vit.reg_token.shape[1]

    def fit_positions(self) -> None:
        rope = self.vit.rope
        if hasattr(rope, "update_feat_shape"):  # others are given the grid in every pass
            rope.update_feat_shape(self.vit.patch_embed.grid_size)
