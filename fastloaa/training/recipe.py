"""Recipes: everything that decides the result of a training run, in one place."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import yaml

from fastloaa.audio import FRONT_ENDS
from fastloaa.files import replacing
from fastloaa.inputs.options import build, check_types, unknown
from fastloaa.methods import Method, OptionError, build_method
from fastloaa.training.paper import PaperRow
from fastloaa.training.schedule import Schedule, ScheduleName, build_schedule

Loss = Literal["cross_entropy", "bce"]
Metric = Literal["accuracy", "mAP"]
OptimiserName = Literal["adamw", "adam"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tracker = Literal["tensorboard", "csv"]
MaskFill = Literal["zero", "mean"]
Crop = Literal["start", "random"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained and tested; two runs of one recipe on one machine's CPU give the same weights.

    Raises:
        OptionError: a value of the wrong type or out of range, or what the method refuses.
    """

    # Data: any of the layouts of fastloaa.data.load_splits.
    data: str
    test_fold: int = 1  # for data sets in folds
    validation: float | None = None  # fraction of the training clips to choose the epoch by; None = layout's default

    # Method: what is inserted and what trains (fastloaa.methods).
    method: str = "loaa"
    method_options: Mapping[str, Any] = field(default_factory=dict)  # e.g. {attn: time, ffn: freq, bottleneck: 36}

    # Model (fastloaa.AST).
    backbone: str = "deit_base_distilled_patch16_384"  # any VisionTransformer or Eva of timm
    backbone_options: Mapping[str, Any] = field(default_factory=dict)  # further arguments for timm.create_model
    weights: str | None = None  # "timm", a file, or None = random
    sample_rate: int = 16000  # Hz; that of epic-sounds is 24000
    # Of fastloaa.audio.FRONT_ENDS: "epic-sounds" for that data set's own. Data that are log-mels in .npy or .npz files
    # get "log-mel", which has their mel_bins, whatever kind they are of.
    front_end: str = "ast"
    frames: int | None = None  # 100 a second, for epic-sounds 200; None = what 95% of the clips fit into, at most 1024
    mel_bins: int = 128
    balance: bool = False  # draw clips with replacement, the rarer their classes the more often, as AST on AudioSet
    crop: Crop = "start"  # what training hears of clips longer than that: their start, or a random window each epoch
    views: int = 1  # and testing: so many windows, evenly from the start to the end, whose logits are averaged
    patch: int | tuple[int, int] = 16  # one number or (frequency, time)
    stride: int | tuple[int, int] = 16
    mean: float | None = None  # of the log-mel values; mean and std None = measured on the training clips
    std: float | None = None

    # Optimiser, and the learning rate: linear warm-up from warmup_lr, then a schedule (fastloaa.training.schedule).
    epochs: int = 25
    batch_size: int = 48  # clips of a step, however it is divided
    optimiser: OptimiserName = "adamw"
    lr: float = 5e-4  # suits adapters and the probe; full fine-tuning wants a fifth of it or less
    warmup_epochs: float = 1.0
    warmup_lr: float = 0.0
    schedule: ScheduleName = "cosine"
    schedule_options: Mapping[str, Any] = field(default_factory=dict)  # e.g. {factor: 0.85, from_epoch: 5}
    weight_decay: float = 1e-4  # none on norms and biases
    layer_decay: float | None = None  # times the rate with each block towards the input; for full fine-tuning, as 0.75
    betas: tuple[float, float] = (0.9, 0.999)
    grad_clip: float | None = None  # largest norm of the gradient; None = no limit

    # Loss and augmentation, as AST defines them (fastloaa.audio).
    loss: Loss = "cross_entropy"
    label_smoothing: float = 0.0
    mixup: float = 0.0  # probability for each clip
    mixup_alpha: float = 10.0
    freq_mask: int = 24  # SpecAugment: widest mask, in mel bins
    time_mask: int = 24  # and in frames
    masks: int = 1  # of each kind
    mask_fill: MaskFill = "zero"  # what they cover a clip with: "mean" is the clip's own
    noise_and_roll: bool = False

    # Which weights it ends with.
    metric: Metric | None = None  # that chooses the epoch; None = mAP where clips have several labels, else accuracy
    test_every_epoch: bool = False  # note what the test clips give after each epoch, as AST reports; chooses nothing
    ema: float | None = None  # decay of an exponential moving average of the weights, which then stands for them
    average_epochs: int | None = None  # the average of the last so many epochs' weights, in place of the best epoch's

    # How it runs.
    precision: Precision = "auto"  # bf16 on CUDA devices that have it, else fp32
    frozen_bf16: bool = False  # keep frozen matrices in bf16; with precision bf16 this changes no result
    accumulate: int = 1  # parts that a batch is run in, one after the other, to save memory
    checkpoint_activations: bool = False  # recompute activations in the backward pass, to save memory
    compile: bool = False  # torch.compile for training
    seed: int = 0
    workers: int = 0  # processes that decode files; 0 is fastest for data that fits into memory
    checkpoint_every: int | None = None  # steps between checkpoints, besides the one after each epoch
    trackers: tuple[Tracker, ...] = ()  # besides metrics.jsonl: tensorboard, csv

    # What the paper says of it (fastloaa.training.paper): kept with the run, without effect on it.
    paper: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)
        if self.front_end not in FRONT_ENDS:
            raise OptionError(unknown("front end", self.front_end, FRONT_ENDS))
        self.build_method()
        self.build_schedule()
        self.paper_row()
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:  # NaN compares false
                raise OptionError(f"{name} is at least {low}, got {value}")
        for name in ("ema", "layer_decay"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise OptionError(f"{name} is between 0 and 1, got {value}")
        if self.ema is not None and self.average_epochs is not None:
            raise OptionError("ema and average_epochs both say which weights are averaged; give one of them")
        for name in ("lr", "mixup_alpha", "grad_clip", "std"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise OptionError(f"{name} is above 0, got {value}")
        for name in ("validation", "label_smoothing"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} is a fraction in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.mixup <= 1:
            raise OptionError(f"mixup is a probability in [0, 1], got {self.mixup}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError(f"betas are two numbers in [0, 1), got {list(self.betas)}")
        for name, rate in {"warmup_lr": self.warmup_lr, "min_lr": self.schedule_options.get("min_lr", 0.0)}.items():
            if rate > self.lr:
                raise OptionError(f"{name} is at most lr={self.lr}, got {rate}")
        for name, most in {"accumulate": self.batch_size, "average_epochs": self.epochs}.items():
            if (getattr(self, name) or 0) > most:
                limit = "batch_size" if name == "accumulate" else "epochs"
                raise OptionError(f"{name} is at most {limit}={most}, got {getattr(self, name)}")
        if (self.mean is None) != (self.std is None):
            raise OptionError("mean and std go together: give both, or neither to have them measured")
        if self.label_smoothing and self.loss != "cross_entropy":
            raise OptionError(f'label_smoothing goes with loss "cross_entropy", got loss {self.loss!r}')

    def build_method(self) -> Method:
        """The method with its options."""
        return build_method(self.method, self.method_options)

    def build_schedule(self) -> Schedule:
        """The schedule with its options."""
        return build_schedule(self.schedule, self.schedule_options)

    def paper_row(self) -> PaperRow:
        """What the paper says of it."""
        return PaperRow.read(self.paper)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe from a mapping, such as a YAML file's.

        Raises:
            OptionError: an unknown name, or a value that does not fit.
        """
        return build(cls, values, "recipe")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values, ready for YAML and JSON."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a YAML file; what it leaves out has its default.

        Raises:
            OptionError: missing, not a YAML mapping, an unknown name, or a value that does not fit.
        """
        values = read_yaml(path)
        try:
            return cls.from_dict(values)
        except OptionError as error:
            raise OptionError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write all fields as YAML; `Recipe.load` gives an equal recipe."""
        text = yaml.dump(self.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed.

        Raises:
            OptionError: an unknown name, or a value that does not fit.
        """
        return self.from_dict(self.to_dict() | changes)

    def override(self, assignments: Iterable[str]) -> "Recipe":
        """A copy changed by texts `key=value`, as typed after `--set`: see `parse_assignments`."""
        return self.from_dict(merged(self.to_dict(), parse_assignments(assignments)))


_AT_LEAST: dict[str, float] = {
    **dict.fromkeys(("sample_rate", "frames", "mel_bins", "epochs", "batch_size", "accumulate"), 1),
    **dict.fromkeys(("masks", "average_epochs", "checkpoint_every", "views"), 1),
    **dict.fromkeys(("warmup_epochs", "warmup_lr", "weight_decay", "freq_mask", "time_mask"), 0),
    **dict.fromkeys(("test_fold", "seed", "workers"), 0),
}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} for an empty one.

    Raises:
        OptionError: missing, not YAML, or no mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise OptionError(f"{path}: no such file; expected a recipe in YAML")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise OptionError(f"{path}: {size:,} bytes, expected a recipe of at most {_MOST_BYTES:,}")
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OptionError(f"{path}: not YAML ({error})") from error
    if values is not None and not isinstance(values, dict):
        raise OptionError(f"{path}: holds {type(values).__name__}, expected lines of `name: value`")
    if odd := [name for name in values or () if not isinstance(name, str)]:
        raise OptionError(f"{path}: {odd[0]!r} is not a name; expected lines of `name: value`")
    return values or {}


def _parse(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: not YAML, or more of it than a recipe has; one line.
    """
    try:
        return yaml.load(text, _Loader)
    # PyYAML's own, and what its makers of numbers, dates and the like raise for a text that is none.
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as e:
        raise ValueError(" ".join(str(e).split())[:500] or type(e).__name__) from e


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["lr=1e-3", "method_options.attn=time"]` -> `{"lr": 0.001, "method_options": {"attn": "time"}}`.

    Values are YAML; "none" is null as well. A dot leads into a mapping.

    Raises:
        OptionError: no "=", or a value that is not YAML.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"expected key=value, got {assignment!r}; for example lr=1e-3")
        section, dot, name = key.strip().partition(".")
        value = parse_value(text)
        values = merged(values, {section: {name: value}} if dot else {section: value})
    return values


def parse_value(text: str) -> Any:
    """A value as it would be read from YAML; "none" is null.

    Raises:
        OptionError: not YAML.
    """
    if text.strip().lower() == "none":
        return None
    try:
        return _parse(text)
    except ValueError as error:
        raise OptionError(f"{text!r} is not a value in YAML; quote text with special characters") from error


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes`; mappings within are merged one level deep rather than replaced."""
    result = dict(values)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = {**result[name], **value} if both else value
    return result


_MOST_BYTES = 100_000
_MOST_NODES = 10_000  # a recipe has about a hundred; aliases of aliases can stand for billions
_MOST_BRACKETS = 50  # within each other; PyYAML's time grows with the square of them


class _Loader(yaml.SafeLoader):
    """Safe, with bounds on what brackets and aliases may make of a short text, and with YAML 1.2's
    floats: PyYAML keeps to YAML 1.1, which reads 1e-3 as text.
    """

    def fetch_flow_collection_start(self, *args: Any) -> None:
        super().fetch_flow_collection_start(*args)
        if self.flow_level > _MOST_BRACKETS:
            raise yaml.YAMLError(f"more than {_MOST_BRACKETS} brackets within each other")

    def get_single_node(self) -> yaml.Node | None:
        root = super().get_single_node()
        waiting, count = [root], 0
        while waiting:
            node, count = waiting.pop(), count + 1
            if isinstance(node, yaml.MappingNode):
                waiting += chain.from_iterable(node.value)
            elif isinstance(node, yaml.SequenceNode):
                waiting += node.value
            if count + len(waiting) > _MOST_NODES:
                raise yaml.YAMLError(f"more than {_MOST_NODES:,} values, aliases counted as what they stand for")
        return root


class _Dumper(yaml.SafeDumper):
    """Puts text that `_Loader` would read as a number in quotes, and text with Unicode's line breaks, in which plain
    style would lose them.
    """

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def _plain(value: Any) -> Any:
    """Tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
