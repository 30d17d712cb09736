"""Put Look-Aside Adapters into a model, freeze the rest."""

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar, cast

from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fastloaa.adapter import Kernel, LoAA, kernel_size
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.follow import follow_grid
from fastloaa.functional import Backend
from fastloaa.grid import TokenGrid
from fastloaa.inputs import check_module, number, whole
from fastloaa.normed import NormedFrom, norm_once

if TYPE_CHECKING:  # transformers is optional, and imported by whoever made such a model
    from transformers import ASTForAudioClassification

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass(frozen=True)
class AdaptConfig:
    """Where adapters stand and what they are like; saved beside their weights. Kernels are (frequency, time) taps."""

    attn: tuple[int, int] | None
    ffn: tuple[int, int] | None
    bottleneck: int
    bias: bool = False
    scale: float = 1.0
    dropout: float = 0.0
    activation: str = "gelu"
    normed_input: bool = True

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "AdaptConfig":
        kernels = {site: values[site] and tuple(values[site]) for site in ("attn", "ffn")}
        return cls(**(values | kernels))


class AudioTransformer(Protocol):
    """What `adapt` needs of a model that is more than a timm ViT: `AST` is one."""

    backbone: VisionTransformer
    head: nn.Module

    @property
    def grid(self) -> TokenGrid: ...

    def config(self) -> dict[str, Any]: ...


def is_audio_transformer(model: Any) -> TypeGuard[AudioTransformer]:
    """Whether `model` is one; isinstance cannot say, since a module's submodules are no attributes of its class."""
    return (
        isinstance(getattr(model, "backbone", None), VisionTransformer)
        and isinstance(getattr(model, "head", None), nn.Module)
        and callable(getattr(model, "config", None))
        and hasattr(model, "grid")
    )


class OpenBlock(nn.Module):
    """A timm transformer block taken apart, for blocks that put something between the parts.

    Takes over the block's children under their own names, so the backbone's state dict keeps its keys.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1, self.drop_path1 = block.norm1, block.attn, block.ls1, block.drop_path1
        self.norm2, self.mlp, self.ls2, self.drop_path2 = block.norm2, block.mlp, block.ls2, block.drop_path2

    def attention_out(self, normed: Tensor, **attention: Any) -> Tensor:
        """What attention adds to the residual stream; keyword arguments (attn_mask, ...) go to the attention."""
        return self.drop_path1(self.ls1(self.attn(normed, **attention)))

    def ffn_out(self, normed: Tensor) -> Tensor:
        """What the FFN adds to the residual stream."""
        return self.drop_path2(self.ls2(self.mlp(normed)))


class AdaptedBlock(OpenBlock):
    """A timm transformer block with adapters beside its attention and its FFN.

    An adapter reads the normed input of its block (the residual stream itself with normed_input=False), and its output
    joins the residual sum after LayerScale and DropPath.
    """

    def __init__(self, block: Block, loaa_attn: LoAA | None, loaa_ffn: LoAA | None, normed_input: bool = True) -> None:
        super().__init__(block)
        self.loaa_attn = loaa_attn
        self.loaa_ffn = loaa_ffn
        self.normed_input = normed_input
        self.train(block.training)

    def forward(self, x: Tensor, **attention: Any) -> Tensor:
        """[batch, tokens, dim] -> the same; keyword arguments (attn_mask, ...) go to the attention."""
        normed, source = norm_once(self.norm1, x)
        x = beside(self.loaa_attn, self.normed_input, normed, self.attention_out(normed, **attention), x, source)
        normed, source = norm_once(self.norm2, x)
        return beside(self.loaa_ffn, self.normed_input, normed, self.ffn_out(normed), x, source)


def beside(
    loaa: LoAA | None, normed_input: bool, normed: Tensor, out: Tensor, x: Tensor, source: NormedFrom | None
) -> Tensor:
    """The residual stream x after a block's output and the adapter beside it, if there is one."""
    if loaa is None:
        return x + out
    return loaa(normed, out, x, source) if normed_input else loaa(x, out, x)


def adapt(
    model: ModelT,
    attn: Kernel | None = "time",
    ffn: Kernel | None = "freq",
    bottleneck: int = 36,
    *,
    bias: bool = False,
    scale: float = 1.0,
    dropout: float = 0.0,
    activation: str = "gelu",
    normed_input: bool = True,
    backend: Backend = "auto",
) -> ModelT:
    """Put LoAA beside every transformer block of `model`, freeze the backbone, leave adapters and head trainable.

    The defaults are the paper's best at 5% of the parameters (table 3: Attn(T) FFN(F), r = 36). The adapted model's
    outputs are those of the plain one until the first optimiser step.

    Args:
        model: `AST`, a timm VisionTransformer (cls only, cls + dist, registers), or `ASTForAudioClassification` of
            Hugging Face transformers. Changed in place.
        attn: kernel of the adapters beside attention, None for none; "time", "freq", "linear" or (frequency, time).
        ffn: the same beside the FFN. With both None only the head trains: a linear probe.
        bottleneck: hidden width r.
        bias, scale, dropout, activation, backend: as for `LoAA`.
        normed_input: adapters read the output of their block's LayerNorm, as Convpass, AIM and the audio peers do (the
            paper does not say); False: the residual stream before it, which `merge` refuses.

    Returns:
        `model` itself.

    Raises:
        ArgumentTypeError: a model or a block that adapters cannot be put into.
        ArgumentError: a model that has adapters already, or settings that `LoAA` refuses.
    """
    check_module(model)
    blocks, grid = list(transformer_blocks(model)), token_grid(model)
    if is_adapted(model):
        raise ArgumentError(
            "the model has been adapted already; build a fresh one, or load other weights into this one"
        )
    config = AdaptConfig(
        attn=None if attn is None else kernel_size(attn),
        ffn=None if ffn is None else kernel_size(ffn),
        bottleneck=whole("bottleneck", bottleneck),
        bias=bool(bias),
        scale=number("scale", scale),
        dropout=number("dropout", dropout),
        activation=activation,
        normed_input=bool(normed_input),
    )
    adapted_block = _adapted_block_class(model)
    for index, block in enumerate(blocks):
        like = next(block.parameters())  # adapters are born on the device and in the dtype of their block

        def adapter(kernel: tuple[int, int] | None, like: Tensor = like) -> LoAA | None:
            if kernel is None:
                return None
            return LoAA(
                embed_dim(model),
                bottleneck,
                kernel,
                freq_bins=grid.freq_bins,
                prefix_tokens=grid.prefix_tokens,
                token_order=grid.token_order,
                bias=bias,
                scale=scale,
                dropout=dropout,
                activation=activation,
                backend=backend,
                device=like.device,
                dtype=like.dtype,
            )

        adapted = adapted_block(block, adapter(config.attn), adapter(config.ffn), normed_input)
        transformer_blocks(model)[index] = adapted
    follow_grid(model, transformer_blocks(model), token_grid)
    if is_transformers_ast(model):
        from fastloaa.transformers_ast import check_input

        model.audio_spectrogram_transformer.embeddings.register_forward_pre_hook(check_input)
    model.__dict__["loaa_config"] = config  # plain data: not for nn.Module to register
    freeze_backbone(model)
    return model


def freeze_backbone(model: nn.Module) -> None:
    """Make the adapters and the head trainable and everything else frozen."""
    model.requires_grad_(False)
    trainable = [m for m in model.modules() if isinstance(m, LoAA)]
    for module in (*trainable, *head_modules(model).values()):
        module.requires_grad_(True)


def adapt_config(model: nn.Module) -> AdaptConfig | None:
    """How `model` has been adapted, None if it has not."""
    return getattr(model, "loaa_config", None)


def is_adapted(model: nn.Module) -> bool:
    """Whether adapters, or what another of `fastloaa.methods` inserts, are in `model`."""
    return adapt_config(model) is not None or hasattr(model, "names_before")


def frozen_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The blocks' parameters without what was inserted, by the names they had before."""
    parameters = dict(transformer_blocks(model).named_parameters())
    names_before: dict[str, str] | None = getattr(model, "names_before", None)  # left by fastloaa.methods
    if names_before is not None:
        return {before: parameters[now] for now, before in names_before.items()}
    adapters = {id(p) for m in model.modules() if isinstance(m, LoAA) for p in m.parameters()}
    return {name: parameter for name, parameter in parameters.items() if id(parameter) not in adapters}


def is_transformers_ast(model: nn.Module) -> "TypeGuard[ASTForAudioClassification]":
    """Whether `model` is Hugging Face transformers' AST with its classifier; does not import transformers."""
    package = "transformers.models.audio_spectrogram_transformer"
    modeling = sys.modules.get(f"{package}.modeling_audio_spectrogram_transformer")
    return modeling is not None and isinstance(model, modeling.ASTForAudioClassification)


def transformer_blocks(model: nn.Module) -> nn.Sequential | nn.ModuleList:
    """The blocks that adapters stand beside.

    Raises:
        ArgumentTypeError: `model` has no blocks that we know.
    """
    if not is_transformers_ast(model):
        return vision_transformer(model).blocks
    layers = getattr(model.audio_spectrogram_transformer, "layers", None)
    if layers is None:
        raise ArgumentTypeError(
            "this version of transformers builds AST in another way; pip install --upgrade transformers"
        )
    return layers


def embed_dim(model: nn.Module) -> int:
    """Width of the tokens."""
    return model.config.hidden_size if is_transformers_ast(model) else vision_transformer(model).embed_dim


def vision_transformer(model: nn.Module) -> VisionTransformer:
    """The timm ViT inside `model`, or `model` itself.

    Raises:
        ArgumentTypeError: there is none.
    """
    if is_transformers_ast(model):
        raise ArgumentTypeError(
            "this needs fastloaa's own AST: AST.from_transformers(model) makes one, adapters and all"
        )
    vit = model.backbone if is_audio_transformer(model) else model
    if not isinstance(vit, VisionTransformer):
        raise ArgumentTypeError(
            f"adapters go into fastloaa.AST, a timm VisionTransformer or transformers' ASTForAudioClassification, got "
            f"{type(model).__name__}; for other models put fastloaa.LoAA beside the blocks yourself"
        )
    return vit


def token_grid(model: nn.Module) -> TokenGrid:
    """How the tokens of `model` lie: AST says it itself, a timm ViT's patches are row-major (frequency = rows).

    Raises:
        ArgumentTypeError: the tokens do not keep to a grid.
    """
    if is_audio_transformer(model):
        return model.grid
    if is_transformers_ast(model):
        config, projection = model.config, model.audio_spectrogram_transformer.embeddings.patch_embeddings.projection
        size = (config.num_mel_bins, config.max_length)
        return TokenGrid.from_spectrogram(*size, projection.kernel_size, projection.stride, 2)
    vit = vision_transformer(model)
    if (
        vit.dynamic_img_size
        or not isinstance(vit.patch_drop, nn.Identity)
        or not getattr(vit.patch_embed, "strict_img_size", True)
    ):
        raise ArgumentTypeError(
            "the model has dynamic_img_size, patch_drop_rate or images of any size, so its tokens keep to no fixed "
            "grid; build it without them: timm.create_model(..., img_size=(mel_bins, frames))"
        )
    rows, cols = vit.patch_embed.grid_size
    return TokenGrid(rows, cols, vit.num_prefix_tokens)


def head_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The trainable head by name: AST's LayerNorm + Linear; a timm ViT's classifier(s) and the norm before them."""
    if is_transformers_ast(model):
        return {"classifier": model.classifier}
    names = ("head",) if is_audio_transformer(model) else ("fc_norm", "head", "head_dist")
    return {name: module for name in names if (module := getattr(model, name, None)) is not None}


def trainable_parameters(model: nn.Module) -> int:
    """Number of weights that training changes."""
    check_module(model)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _adapted_block_class(model: nn.Module) -> type[nn.Module]:
    """What takes the place of the blocks of `model`.

    Raises:
        ArgumentTypeError: a block of another kind than that.
    """
    if is_transformers_ast(model):
        from fastloaa.transformers_ast import AdaptedASTLayer

        return AdaptedASTLayer
    for index, block in enumerate(transformer_blocks(model)):
        check_block(index, block)
    return AdaptedBlock


def check_block(index: int, block: nn.Module) -> Block:
    """`block` if it is one that `OpenBlock` can take apart.

    Raises:
        ArgumentTypeError: it is not.
    """
    if not isinstance(block, Block) or type(block).forward is not Block.forward:
        raise ArgumentTypeError(
            f"block {index} is a {type(block).__name__}; adapters stand beside timm's pre-norm Block "
            f"(x + attn(norm1(x)), x + mlp(norm2(x))): choose a model made of those"
        )
    return cast(Block, block)
