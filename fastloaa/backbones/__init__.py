"""What a model must answer to carry adapters, and the families of models that do: a file each, and a line here."""

from fastloaa.backbones.audio import AudioBackbone, AudioTransformer, is_audio_transformer
from fastloaa.backbones.base import Backbone
from fastloaa.backbones.blocks import AdaptedBlock, BlockLayout, OpenBlock
from fastloaa.backbones.registry import FAMILIES, backbone_of, find_backbone, register
from fastloaa.backbones.timm_eva import TimmEva
from fastloaa.backbones.timm_model import TimmBackbone
from fastloaa.backbones.timm_vit import TimmViT
from fastloaa.backbones.transformers_ast import TransformersAST

FAMILIES.extend([AudioBackbone, TimmViT, TimmEva, TransformersAST])

__all__ = [
    "FAMILIES",
    "AdaptedBlock",
    "AudioTransformer",
    "Backbone",
    "BlockLayout",
    "OpenBlock",
    "TimmBackbone",
    "backbone_of",
    "find_backbone",
    "is_audio_transformer",
    "register",
]
