"""What folding LayerNorm into the down-projection costs in bf16: `python bench/folded_norm.py SOUND...`

down(LN(s)) = rstd * (s @ (gamma W) - mean * sum(gamma W)) + W @ beta needs no normed rows, but takes a difference
of two sums. Both ways are imitated on the residual stream of the image-trained transformer in `examples/backbones`,
which hears the given recordings: operands and result rounded to bf16, sums exact, against float64. Random weights.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fastloaa import AST
from fastloaa.audio import load_audio

BACKBONE = Path(__file__).parents[1] / "examples" / "backbones" / "deit_tiny_depth6_tiny_imagenet.safetensors"


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


def errors(stream: Tensor, norm: nn.LayerNorm, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of the plain and of the folded way, [batch, tokens, columns]."""
    gamma, beta = norm.weight.double(), norm.bias.double()
    rows, weight = rounded(stream), rounded(weight)
    mean = rows.mean(-1, keepdim=True)
    rstd = (rows.var(-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()
    normed = (rows - mean) * rstd * gamma + beta
    exact = normed @ weight.T
    plain = rounded(normed) @ weight.T
    scaled = rounded(weight * gamma)
    folded = rstd * (rows @ scaled.T - mean * scaled.sum(-1)) + weight @ beta
    return rounded(plain) - exact, rounded(folded) - exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sounds", type=Path, nargs="+", help="recordings of some seconds")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = AST(
        1, frames=512, backbone="deit_tiny_distilled_patch16_224", backbone_options={"depth": 6}, weights=BACKBONE
    ).eval()
    streams: list[Tensor] = []
    for block in model.backbone.blocks:
        block.register_forward_pre_hook(lambda _, given: streams.append(given[0]))
    made = Table("block", "mean / spread", "largest error: plain", "folded", "root mean square: plain", "folded")
    with torch.no_grad():
        clips = [load_audio(path)[: model.front_end.samples] for path in arguments.sounds]
        model(model.front_end(nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([*map(len, clips)])))
        for number, (block, stream) in enumerate(zip(model.backbone.blocks, streams, strict=True)):
            found = errors(stream, block.norm1, torch.randn(108, stream.shape[-1]) / stream.shape[-1] ** 0.5)
            most = [f"{error.abs().max():.4f}" for error in found]
            square = [f"{error.square().mean().sqrt():.5f}" for error in found]
            ratio = (stream.mean(-1).abs() / stream.std(-1)).mean()
            made.add_row(str(number), f"{ratio:.2f}", *most, *square)
    Console().print(made)


if __name__ == "__main__":
    main()
