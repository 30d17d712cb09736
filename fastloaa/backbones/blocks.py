"""Transformer blocks taken apart, so that something can stand between or beside their parts."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from fastloaa.errors import ArgumentTypeError
from fastloaa.grid import TokenGrid
from fastloaa.ops.normed import NormedFrom, norm_once


@dataclass(frozen=True)
class BlockLayout:
    """What a pre-norm block calls its parts: x + drop1(scale1(attn(norm1(x)))), then the same with norm2 and mlp.

    Args:
        norm1, attn, norm2, mlp: submodules; `mlp` is the FFN.
        scale1, scale2: LayerScale, a submodule or a parameter [dim]; None, or an attribute that is None: there is none.
        drop1, drop2: what comes after it in training (DropPath, Dropout); None: nothing.
    """

    norm1: str = "norm1"
    attn: str = "attn"
    norm2: str = "norm2"
    mlp: str = "mlp"
    scale1: str | None = None
    drop1: str | None = None
    scale2: str | None = None
    drop2: str | None = None


class Branch(Protocol):
    """What may stand beside attention or FFN, such as `LoAA`."""

    def set_grid(self, grid: TokenGrid) -> None: ...

    def __call__(
        self, x: Tensor, block_out: Tensor, skip: Tensor, normed_from: NormedFrom | None = None, /
    ) -> Tensor: ...


class OpenHook:
    """A forward pre-hook that an open block has as such, and that leaves with what stands in it."""


class OpenBlock(nn.Module):
    """A pre-norm block taken apart, for blocks that put something between the parts.

    Takes over all that the block has under its own names, so the backbone's state dict keeps its keys, and its forward
    and backward hooks. A block that was compiled in place (`block.compile()`) is not any more: its parts are others.

    Raises:
        ArgumentTypeError: the block's forward has been replaced.
    """

    def __init__(self, block: nn.Module, layout: BlockLayout) -> None:
        nn.Module.__init__(self)  # not that of a subclass's other base, which would draw weights
        if "forward" in vars(block):
            raise ArgumentTypeError(
                f"a block has a forward of its own beside that of its class, {type(block).__name__}: what is put into "
                f"the block would never run; remove it first (del block.forward; accelerate's: remove_hook_from_module)"
            )
        self.layout, self.block_type = layout, type(block)
        self.taken = _take_over(self, block)

    @property
    def norm_attn(self) -> nn.Module:
        """The norm before attention."""
        return getattr(self, self.layout.norm1)

    @property
    def norm_ffn(self) -> nn.Module:
        """The norm before the FFN."""
        return getattr(self, self.layout.norm2)

    def attend(self, normed: Tensor, **attention: Any) -> Tensor:
        """What attention returns; keyword arguments (attn_mask, rope, ...) go to it."""
        return getattr(self, self.layout.attn)(normed, **attention)

    def after_attention(self, out: Tensor) -> Tensor:
        """LayerScale and DropPath of what attention returned."""
        return self._after(out, self.layout.scale1, self.layout.drop1)

    def attention_out(self, normed: Tensor, **attention: Any) -> Tensor:
        """What attention adds to the residual stream; keyword arguments go to it."""
        return self.after_attention(self.attend(normed, **attention))

    def ffn_out(self, normed: Tensor) -> Tensor:
        """What the FFN adds to the residual stream."""
        return self._after(getattr(self, self.layout.mlp)(normed), self.layout.scale2, self.layout.drop2)

    def _after(self, out: Tensor, scale: str | None, drop: str | None) -> Tensor:
        gamma = None if scale is None else getattr(self, scale)
        if gamma is not None:
            out = gamma(out) if isinstance(gamma, nn.Module) else gamma * out
        return self.dropped(out, drop)

    def dropped(self, out: Tensor, drop: str | None) -> Tensor:
        """After the DropPath or Dropout of that name, one of those of the layout."""
        return out if drop is None else getattr(self, drop)(out)

    def closed(self) -> nn.Module:
        """A block of the class that was taken apart, with the parts as they are now and nothing else."""
        block = self.block_type.__new__(self.block_type)
        nn.Module.__init__(block)
        _take_over(block, self, self.taken)
        for key, hook in list(block._forward_pre_hooks.items()):
            if isinstance(hook, OpenHook):
                del block._forward_pre_hooks[key]
        return block


class AdaptedBlock(OpenBlock):
    """A transformer block with adapters beside its attention and its FFN.

    An adapter reads the normed input of its block (the residual stream itself with normed_input=False), and its output
    joins the residual sum after LayerScale and DropPath.
    """

    def __init__(
        self,
        block: nn.Module,
        layout: BlockLayout,
        loaa_attn: Branch | None = None,
        loaa_ffn: Branch | None = None,
        normed_input: bool = True,
    ) -> None:
        super().__init__(block, layout)
        self.loaa_attn = loaa_attn
        self.loaa_ffn = loaa_ffn
        self.normed_input = normed_input
        self.train(block.training)

    def forward(self, x: Tensor, **attention: Any) -> Tensor:
        """[batch, tokens, dim] -> the same; keyword arguments (attn_mask, rope, ...) go to the attention."""
        normed, source = norm_once(self.norm_attn, x)
        x = self.beside(self.loaa_attn, normed, self.attention_out(normed, **attention), x, source)
        normed, source = norm_once(self.norm_ffn, x)
        return self.beside(self.loaa_ffn, normed, self.ffn_out(normed), x, source)

    def beside(
        self, branch: Branch | None, normed: Tensor, out: Tensor, x: Tensor, source: NormedFrom | None
    ) -> Tensor:
        """The residual stream x after what a part of the block adds and the adapter beside it, if there is one."""
        if branch is None:
            return x + out
        return branch(normed, out, x, source) if self.normed_input else branch(x, out, x)


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_HOOKS = [name for name in _OF_EVERY_MODULE if name.startswith(("_forward_", "_backward_", "_is_full_backward_hook"))]


def _take_over(to: nn.Module, block: nn.Module, names: frozenset[str] | None = None) -> frozenset[str]:
    """Give `to` the submodules, parameters, buffers and attributes of `block`, or some of them; returns their names."""
    elsewhere = _OF_EVERY_MODULE | {"_compiled_call_impl"}  # which is a call of `block` itself
    own = {name: value for name, value in vars(block).items() if name not in elsewhere}
    parts = [*own, *block._parameters, *block._buffers, *block._modules]
    taken = frozenset(parts) if names is None else names
    for name, value in own.items():
        if name in taken:
            to.__dict__[name] = value
    for name, parameter in block._parameters.items():
        if name in taken:
            to.register_parameter(name, parameter)
    for name, buffer in block._buffers.items():
        if name in taken:
            to.register_buffer(name, buffer, persistent=name not in block._non_persistent_buffers_set)
    for name, module in block._modules.items():
        if name in taken:
            to.add_module(name, module)
    for name in _HOOKS:
        setattr(to, name, getattr(block, name))  # the dictionaries themselves, from which handles remove
    to.training = block.training
    return taken
