"""AST, the Audio Spectrogram Transformer on any plain transformer of timm (Gong et al., Interspeech 2021)."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from fastloaa.adapters.record import is_adapted, record_of
from fastloaa.audio import FRONT_ENDS, SpectrogramFrontEnd
from fastloaa.backbones import TimmBackbone, find_backbone
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.files import FileError, check_tensors, read_safetensors, understanding, write_safetensors
from fastloaa.grid import TokenGrid, pair
from fastloaa.inputs import as_tensor, class_names, whole
from fastloaa.models.architecture import check_architecture
from fastloaa.models.from_transformers import ast_config, ast_state, copy_adapters
from fastloaa.models.layouts import WeightsError
from fastloaa.models.weights import fit_patch_weight, fit_position_embedding, read_backbone
from fastloaa.probabilities import Probabilities, check_probabilities

if TYPE_CHECKING:  # transformers is optional, and imported by whoever made such a model
    from transformers import ASTFeatureExtractor, ASTForAudioClassification


class SpectrogramPatches(nn.Module):
    """Patch embedding of a one-channel spectrogram; the patches may overlap. Stands in for timm's PatchEmbed.

    Attributes:
        img_size: (mel_bins, frames) of the spectrograms.
        grid_size, num_patches, patch_size: as timm's PatchEmbed has them.
    """

    def __init__(
        self, dim: int, img_size: tuple[int, int], patch: tuple[int, int], stride: tuple[int, int], bias: bool
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, patch, stride, bias=bias)
        grid = TokenGrid.from_spectrogram(*img_size, patch, stride)
        self.img_size = img_size
        self.grid_size = (grid.freq_bins, grid.time_steps)
        self.num_patches = grid.patches
        self.patch_size = patch

    def forward(self, spectrogram: Tensor) -> Tensor:
        """[batch, 1, mel_bins, frames] -> [batch, patches, dim], frequency-major.

        Raises:
            ArgumentError: another shape.
        """
        _check_image(spectrogram, self.img_size)
        return self.proj(spectrogram).flatten(2).transpose(1, 2)

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Step between patches, the larger or both; timm's feature extractors ask for it."""
        step = (self.proj.stride[0], self.proj.stride[1])
        return max(step) if as_scalar else step

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """The grid of the one size there is; timm's `forward_intermediates` asks for it."""
        return self.grid_size

    def set_input_size(self, *_: Any, **__: Any) -> None:
        """Raise ValueError: front end, grid and position embedding are made for each other."""
        raise ArgumentError(
            "AST keeps to the size that it was built for; save it, and take its backbone for another: "
            "model.save(path), then AST(num_classes, frames=..., mel_bins=..., weights=path)"
        )


@torch.fx.wrap  # one node to symbolic tracing, which sees no shape
def _check_image(spectrogram: Tensor, size: tuple[int, int]) -> None:
    if spectrogram.dim() != 4 or tuple(spectrogram.shape[1:]) != (1, *size):
        raise ArgumentError(
            f"expected spectrograms [batch, 1, mel_bins={size[0]}, frames={size[1]}], got {tuple(spectrogram.shape)}"
        )


@torch.fx.wrap
def _check_log_mel(log_mel: Tensor, size: tuple[int, int]) -> None:
    mel_bins, frames = size
    given = tuple(log_mel.shape)
    if len(given) == 3 and given[1:] == (frames, mel_bins):
        return
    advice = "model.front_end(waveform) makes it from waveforms"
    if given[-2:] == (mel_bins, frames):
        advice = "swap its last axes: log_mel.transpose(-2, -1)"
    elif given == (frames, mel_bins):
        advice = "a single clip is log_mel[None]"
    elif given[1:] == (1, frames, mel_bins):
        advice = "it has no axis of channels: log_mel.squeeze(1)"
    raise ArgumentError(f"expected log-mel [batch, frames={frames}, mel_bins={mel_bins}], got {given}; {advice}")


class AST(nn.Module):
    """Audio Spectrogram Transformer on a timm backbone, with the paper's patch, position-embedding and pooling rules.

    Args:
        num_classes: outputs of the head (LayerNorm + Linear).
        frames, mel_bins: size of the spectrogram.
        patch, stride: of the patch embedding, one number or (frequency, time); stride < patch overlaps.
        backbone: name of a timm VisionTransformer or Eva, e.g. "vit_small_patch16_dinov3".
        weights: "timm" (downloads the ImageNet weights), a path (see `read_backbone`), or None (random). Colour
            channels of the patch weights are summed; the position embedding is cut or stretched to the grid.
        backbone_options: further arguments for timm.create_model, e.g. {"depth": 4, "embed_dim": 192, "num_heads": 3}.
        sample_rate, mean, std: of the front end, see `fastloaa.audio.FrontEnd`; None: its own, which for "ast" are
            16000 and AudioSet's statistics.
        front_end: "ast"; "epic-sounds" for `fastloaa.audio.EpicSoundsFrontEnd` (24000, 0 and 0.5; its baselines have
            frames=400); or "log-mel" for `fastloaa.audio.StoredLogMel`, spectrograms from files, whose sample_rate is
            frames a second (100, 0 and 0.5).
        labels: names of the classes, kept with the model wherever it is saved or exported.
        probabilities: what its logits are trained for, "softmax" or "sigmoid"; training sets it by the loss, and
            exported files answer with it.
        multi_label: a clip may have several of the labels, or none.
        norm_eps: epsilon of every LayerNorm; None leaves AST's, 1e-6 in timm's backbone and 1e-5 in the head.

    Attributes:
        front_end: turns waveforms into what the model reads; no weights.

    Raises:
        ArgumentError: sizes that do not fit each other.
        ArgumentTypeError: a backbone that is not a timm VisionTransformer or Eva.
        FileError, WeightsError: a weights file that cannot be read, or does not fit.

    Examples:
        >>> import torch
        >>> from fastloaa import AST
        >>> model = AST(num_classes=50, frames=64, backbone_options={"depth": 1, "embed_dim": 48, "num_heads": 3})
        >>> waveform = torch.randn(2, 9000)  # at 16 kHz
        >>> model(model.front_end(waveform)).shape
        torch.Size([2, 50])
        >>> model.grid
        TokenGrid(freq_bins=8, time_steps=4, prefix_tokens=2, token_order='freq')
    """

    def __init__(
        self,
        num_classes: int,
        frames: int = 1024,
        mel_bins: int = 128,
        patch: int | tuple[int, int] = 16,
        stride: int | tuple[int, int] = 16,
        backbone: str = "deit_base_distilled_patch16_384",
        weights: str | Path | None = None,
        *,
        backbone_options: Mapping[str, Any] | None = None,
        sample_rate: int | None = None,
        mean: float | None = None,
        std: float | None = None,
        front_end: str = "ast",
        labels: Sequence[str] | None = None,
        probabilities: Probabilities = "softmax",
        multi_label: bool = False,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        num_classes, frames = whole("num_classes", num_classes), whole("frames", frames)
        mel_bins = whole("mel_bins", mel_bins)
        rate = None if sample_rate is None else whole("sample_rate", sample_rate)
        names = None if labels is None else class_names(labels, num_classes)
        if not isinstance(backbone, str):
            raise ArgumentTypeError(
                f"backbone is the name of a timm VisionTransformer or Eva, got {type(backbone).__name__}"
            )
        if not isinstance(weights, str | Path | None):
            raise ArgumentTypeError(f'weights is "timm", the path of a file, or None; got {weights!r:.80}')
        check_probabilities(probabilities, multi_label)
        if front_end not in FRONT_ENDS:
            raise ArgumentError(f"front_end is one of {', '.join(FRONT_ENDS)}; got {front_end!r}")
        settings = {"sample_rate": rate, "mean": mean, "std": std}
        given = {name: value for name, value in settings.items() if value is not None}
        self.front_end: SpectrogramFrontEnd = FRONT_ENDS[front_end](frames, mel_bins, **given)  # type: ignore[arg-type]
        self.num_classes = num_classes
        self.labels = names
        self.probabilities, self.multi_label = probabilities, multi_label
        self._architecture = {
            "backbone": backbone,
            "backbone_options": dict(backbone_options or {}),
            "patch": pair(patch),
            "stride": pair(stride),
            "norm_eps": norm_eps,
        }
        vit = _create(backbone, weights == "timm", dict(backbone_options or {}))
        family = find_backbone(vit)
        if not isinstance(family, TimmBackbone):
            raise ArgumentTypeError(
                f"backbone is the name of a timm VisionTransformer (vit_*, deit_*) or Eva (eva02_*, *_dinov3), got "
                f"{backbone!r}"
            )
        source, source_grid = vit.state_dict(), vit.patch_embed.grid_size
        if weights is not None and weights != "timm":
            source, source_grid = read_backbone(weights)
        self.backbone = vit
        _fit(family, (mel_bins, frames), pair(patch), pair(stride))
        if weights is not None:
            _load(vit, source, source_grid, self.grid, str(weights))
        self.head = nn.Sequential(nn.LayerNorm(vit.embed_dim), nn.Linear(vit.embed_dim, num_classes))
        if norm_eps is not None:
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = norm_eps

    def forward(self, log_mel: Tensor) -> Tensor:
        """Normalised log-mel [batch, frames, mel_bins] (what `front_end` returns) -> logits [batch, num_classes]."""
        return self.head(self.embed(log_mel))

    def forward_intermediates(self, log_mel: Tensor, *args: Any, **options: Any) -> Any:
        """What single blocks return, as timm's `VisionTransformer.forward_intermediates`; reads log-mel as `forward`.

        In the format "NCHW", the default, [batch, dim, freq_bins, time_steps] each.
        """
        return self.backbone.forward_intermediates(self._image(log_mel), *args, **options)

    def _image(self, log_mel: Tensor) -> Tensor:
        """[batch, frames, mel_bins] -> [batch, 1, mel_bins, frames]."""
        mel_bins, frames = self.backbone.patch_embed.img_size
        expected = f"log-mel [batch, frames={frames}, mel_bins={mel_bins}]"
        log_mel = as_tensor("log_mel", log_mel, self.backbone.patch_embed.proj.weight, expected)
        _check_log_mel(log_mel, (mel_bins, frames))
        return log_mel.transpose(1, 2).unsqueeze(1)

    @property
    def grid(self) -> TokenGrid:
        """How the tokens lie."""
        freq_bins, time_steps = self.backbone.patch_embed.grid_size
        return TokenGrid(freq_bins, time_steps, self.backbone.num_prefix_tokens)

    def embed(self, log_mel: Tensor) -> Tensor:
        """The clip embedding [batch, dim]: (cls + dist) / 2, cls alone, or the mean of the patches without either."""
        tokens = self.backbone.forward_features(self._image(log_mel))
        classifying = self._classifying
        if classifying:
            return self.backbone.fc_norm(tokens[:, :classifying].mean(1))
        return self.backbone.fc_norm(tokens[:, self.grid.prefix_tokens :].mean(1))

    @property
    def _classifying(self) -> int:
        """How many of the prefix tokens are no registers."""
        family = find_backbone(self.backbone)
        return self.grid.prefix_tokens - (family.registers if isinstance(family, TimmBackbone) else 0)

    @property
    def tokens_read(self) -> int | None:
        """How many tokens, counted from the first, the head can do with; None: all of them."""
        return self.grid.prefix_tokens if self._classifying else None

    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments, without the weights: `AST(**model.config())` is the same architecture."""
        return {
            "num_classes": self.num_classes,
            "labels": self.labels and list(self.labels),
            "probabilities": self.probabilities,
            "multi_label": self.multi_label,
            **copy.deepcopy(self._architecture),
            "front_end": self.front_end.kind,
            **self.front_end.config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], weights: str | Path | None = None) -> "AST":
        """The architecture that `config()` describes, whether or not it has been through JSON."""
        pairs = {name: tuple(config[name]) for name in ("patch", "stride") if name in config}
        return cls(**{**config, **pairs}, weights=weights)

    @classmethod
    def from_transformers(
        cls, model: "ASTForAudioClassification", feature_extractor: "ASTFeatureExtractor | None" = None
    ) -> "AST":
        """A copy of Hugging Face transformers' AST as our own, with its logits; adapters in it come along.

        Args:
            model: such as `ASTForAudioClassification.from_pretrained("MIT/ast-finetuned-audioset-10-10-0.4593")`.
            feature_extractor: gives sample rate, mean and std; AudioSet's without it.

        Raises:
            ArgumentTypeError: another model.
            ArgumentError: one whose activation AST does not have, or that has no classes.
        """
        ast = cls(**ast_config(model, feature_extractor)).to(model.device, model.dtype)
        ast.load_state_dict(ast_state(model))
        copy_adapters(model, ast)
        return ast.train(model.training)

    def save(self, path: str | Path) -> None:
        """Write backbone and head with their configuration as safetensors; not for adapted models (`save_adapter`), nor
        for merged ones (`save_merged`).

        `AST.load(path)` brings the model back; `AST(..., weights=path)` takes the backbone alone.
        """
        if is_adapted(self):
            raise ArgumentError(
                "the model has adapters: save_adapter(model, path), or the method that put them in, saves them alone; "
                "merge(model) dissolves those of LoAA"
            )
        if record_of(self).merged_from is not None:
            raise ArgumentError(
                "the model is a merged one, wider than its configuration says; save_merged(model, path)"
            )
        grid = {"freq_bins": self.grid.freq_bins, "time_steps": self.grid.time_steps}
        write_safetensors(path, self.state_dict(), {"kind": "model", "config": self.config(), "grid": grid})

    @classmethod
    def load(cls, path: str | Path) -> "AST":
        """The model that `save` wrote.

        Raises:
            FileError: not such a file, or a damaged one.
        """
        state, metadata = read_safetensors(path)
        if metadata.get("kind") != "model":
            raise FileError(f"{path}: was not written by AST.save; for a backbone use AST(..., weights=path)")
        with understanding(path, "a model that AST.save wrote"):
            check_architecture(path, metadata["config"])
            model = cls.from_config(metadata["config"])
        check_tensors(path, model.state_dict(), state)
        model.load_state_dict(state)
        return model


def _create(name: str, pretrained: bool, options: dict[str, Any]) -> Any:
    """A model of timm, for images of one size if it can be told so."""
    model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    if getattr(model, "dynamic_img_size", False):  # DINOv3's default: positions of any grid, made anew in each pass
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options | {"dynamic_img_size": False})
    return model


def _fit(family: TimmBackbone, img_size: tuple[int, int], patch: tuple[int, int], stride: tuple[int, int]) -> None:
    """Give a timm model a one-channel patch embedding and a position embedding of the grid's size, freshly initialised,
    and rotary positions of that grid."""
    vit = family.vit
    bias = vit.patch_embed.proj.bias is not None
    vit.patch_embed = SpectrogramPatches(vit.embed_dim, img_size, patch, stride, bias)
    if vit.pos_embed is not None:
        tokens = vit.patch_embed.num_patches + (0 if vit.no_embed_class else vit.num_prefix_tokens)
        vit.pos_embed = nn.Parameter(torch.empty(1, tokens, vit.embed_dim))
        trunc_normal_(vit.pos_embed, std=0.02)
    family.fit_positions()


def _load(
    vit: Any,
    state: dict[str, Tensor],
    source_grid: tuple[int, int] | None,
    grid: TokenGrid,
    name: str,
) -> None:
    """Load a state dict of another grid into a fitted ViT."""
    state = {key: value for key, value in state.items() if not key.startswith(("head.", "head_dist."))}
    try:
        if "patch_embed.proj.weight" in state:
            weight = fit_patch_weight(state["patch_embed.proj.weight"], vit.patch_embed.patch_size)
            state["patch_embed.proj.weight"] = weight
        if "pos_embed" in state and vit.pos_embed is not None:
            prefix = 0 if vit.no_embed_class else grid.prefix_tokens
            target = (grid.freq_bins, grid.time_steps)
            state["pos_embed"] = fit_position_embedding(state["pos_embed"], source_grid, target, prefix)
        vit.load_state_dict(state)
    except (WeightsError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{name} does not fit the backbone: {reason[:300]}") from error
