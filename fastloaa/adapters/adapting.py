"""Put Look-Aside Adapters into a model, freeze the rest."""

import inspect
from dataclasses import fields, replace
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from fastloaa.adapters.config import AdaptConfig, AdapterOptions
from fastloaa.adapters.follow import follow_grid
from fastloaa.adapters.loaa import Kernel, LoAA
from fastloaa.adapters.record import adapt_config, is_adapted, note, record_of
from fastloaa.backbones import AdaptedBlock, Backbone, BlockLayout, backbone_of, find_backbone, register
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.inputs import check_module

ModelT = TypeVar("ModelT", bound=nn.Module)
_SITES = ("loaa_attn", "loaa_ffn")
_DEFAULTS = AdapterOptions()
_OPTIONS = [option.name for option in fields(AdapterOptions) if option.name not in ("attn", "ffn", "bottleneck")]


def adapt(
    model: ModelT,
    attn: Kernel | None = _DEFAULTS.attn,
    ffn: Kernel | None = _DEFAULTS.ffn,
    bottleneck: int = _DEFAULTS.bottleneck,
    **options: Any,
) -> ModelT:
    """Put LoAA beside every transformer block of `model`, freeze the backbone, leave adapters and head trainable.

    The defaults are the paper's best at 5% of the parameters (table 3: Attn(T) FFN(F), r = 36). The adapted model's
    outputs are those of the plain one until the first optimiser step.

    Args:
        model: `AST`, a timm VisionTransformer or Eva (cls only, cls + dist, registers), `ASTForAudioClassification` of
            Hugging Face transformers, or a `fastloaa.backbones.Backbone` around a model of your own, whose family is
            then known as if by `register`. Changed in place.
        attn: kernel of the adapters beside attention, None for none; "time", "freq", "linear" or (frequency, time).
        ffn: the same beside the FFN. With both None only the head trains: a linear probe.
        bottleneck: hidden width r.
        bias, scale, dropout, activation, backend: as for `LoAA`.
        normed_input: adapters read the output of their block's LayerNorm, as Convpass, AIM and the audio peers do (the
            paper does not say); False: the residual stream before it, which `merge` refuses.

    Returns:
        `model` itself; of a `Backbone` its model.

    Raises:
        ArgumentTypeError: a model or a block that adapters cannot be put into, or an unknown option.
        ArgumentError: a model that has adapters already, or settings that `LoAA` refuses.

    Examples:
        >>> import timm
        >>> from fastloaa import adapt, trainable_parameters
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=(128, 512), in_chans=1, num_classes=50)
        >>> model = adapt(model, attn="time", ffn="freq", bottleneck=8)
        >>> trainable_parameters(model) - trainable_parameters(model.head) == 12 * 2 * (2 * 8 * 192 * 3)
        True
    """
    backbone = backbone_of(model)
    module = backbone.model
    if is_adapted(module):
        raise ArgumentError(
            "the model has been adapted already; build a fresh one, or load other weights into this one"
        )
    _layouts(backbone)
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ArgumentTypeError(f"adapt() has no option {unknown[0]!r}; it has {', '.join(_OPTIONS)}")
    if find_backbone(module) is None:
        register(type(backbone))
    config = AdaptConfig(attn=attn, ffn=ffn, bottleneck=bottleneck, **options)  # type: ignore[arg-type]
    adapters = [
        tuple(
            None if kernel is None else new_adapter(backbone, next(block.parameters()), kernel, config)
            for kernel in (config.attn, config.ffn)
        )
        for block in backbone.blocks
    ]
    opened = open_blocks(backbone, config.normed_input)
    for block, (loaa_attn, loaa_ffn) in zip(opened, adapters, strict=True):
        block.loaa_attn, block.loaa_ffn = loaa_attn, loaa_ffn
        block.train(block.training)
    note(module, adapted=config)
    freeze_backbone(backbone)
    return cast(ModelT, module)


adapt.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # for help(): the options by their names
    [
        *list(inspect.signature(adapt).parameters.values())[:-1],
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(_DEFAULTS, name))
            for name in _OPTIONS
        ),
    ],
    return_annotation=ModelT,
)


def open_blocks(backbone: Backbone, normed_input: bool) -> list[AdaptedBlock]:
    """Take the blocks apart, so that adapters can stand beside their attention and FFN; there are none yet.

    Returns:
        What stands in the blocks' places.

    Raises:
        ArgumentTypeError: a model or a block that adapters cannot be put into; none has been changed.
    """
    opened = [
        backbone.adapted_block(block, layout, normed_input=normed_input)
        for block, layout in zip(backbone.blocks, _layouts(backbone), strict=True)
    ]
    for index, block in enumerate(opened):
        backbone.blocks[index] = block
    follow_grid(backbone)
    backbone.adapted()
    return opened


def _layouts(backbone: Backbone) -> list[BlockLayout]:
    backbone.grid  # noqa: B018 (asked, since it may be refused)
    return [backbone.layout(index, block) for index, block in enumerate(backbone.blocks)]


def new_adapter(backbone: Backbone, like: Tensor, kernel: tuple[int, int], config: AdaptConfig) -> LoAA:
    """An adapter for the model's grid and width, on the device and in the dtype of `like`, a parameter of its block."""
    grid = backbone.grid
    return LoAA(
        backbone.dim,
        kernel=kernel,
        freq_bins=grid.freq_bins,
        prefix_tokens=grid.prefix_tokens,
        token_order=grid.token_order,
        device=like.device,
        dtype=like.dtype,
        **config.branch(),
    )


def present_config(model: nn.Module) -> AdaptConfig | None:
    """As `adapt_config`, of the adapters as they are now: they may have been given other factors since `adapt`, or
    others have taken their places. Dropout and backend, which change no answers, are those that `adapt` was given.

    Raises:
        ArgumentError: they are not alike, and no one configuration says what they are.
    """
    config = adapt_config(model)
    blocks = [] if config is None else list(backbone_of(model).blocks)
    if config is None or not blocks:
        return config
    described = [
        [_described(index, getattr(block, site, None)) for site in _SITES] for index, block in enumerate(blocks)
    ]
    for index, other in enumerate(described):
        if other != described[0]:
            raise ArgumentError(
                f"block {index} has other adapters than block 0: beside attention and FFN {other}, not {described[0]}; "
                f"one configuration is kept for all"
            )
    attn, ffn = described[0]
    kernels = {name: one and one.pop("kernel") for name, one in (("attn", attn), ("ffn", ffn))}
    if attn and ffn and attn != ffn:
        raise ArgumentError(
            f"the adapters beside attention have {attn}, those beside the FFN {ffn}; one configuration is kept for all"
        )
    return replace(config, **kernels, **(attn or ffn or {}))  # type: ignore[arg-type]


def _described(index: int, adapter: nn.Module | None) -> dict[str, Any] | None:
    """What of an adapter is in a configuration, None for none."""
    if adapter is None:
        return None
    if not isinstance(adapter, LoAA):
        raise ArgumentError(f"beside block {index} stands a {type(adapter).__name__}; configurations say what LoAA is")
    return {
        "kernel": adapter.down.kernel_size,
        "bottleneck": adapter.down.out_channels,
        "bias": adapter.down.bias is not None,
        "scale": float(adapter.scale),
        "activation": adapter.activation,
    }


def freeze_backbone(backbone: Backbone) -> None:
    """Make the adapters and the head trainable and everything else frozen."""
    backbone.model.requires_grad_(False)
    trainable = [m for m in backbone.model.modules() if isinstance(m, LoAA)]
    for module in (*trainable, *backbone.head.values()):
        module.requires_grad_(True)


def frozen_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The blocks' parameters without what was inserted, by the names they had before."""
    parameters = dict(backbone_of(model).blocks.named_parameters())
    names_before = record_of(model).names_before
    if names_before is not None:
        return {before: parameters[now] for now, before in names_before.items()}
    adapters = {id(p) for m in model.modules() if isinstance(m, LoAA) for p in m.parameters()}
    return {name: parameter for name, parameter in parameters.items() if id(parameter) not in adapters}


def trainable_parameters(model: nn.Module) -> int:
    """Number of weights that training changes.

    Examples:
        >>> from torch import nn
        >>> from fastloaa import trainable_parameters
        >>> model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2))
        >>> trainable_parameters(model)
        10
    """
    check_module(model)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
