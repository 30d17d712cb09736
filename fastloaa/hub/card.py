"""The card of a model on the hub: what its front matter and its text say, written from the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fastloaa.training import Recipe, Result
from fastloaa.training.result import SplitScore

_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "mAP": "mean_average_precision"}  # ours, and the hub's names


@dataclass(frozen=True)
class Facts:
    """What a card tells.

    Attributes:
        name: of the data set; None: unknown, and so is all that a run would say.
        backbone: its name with timm, or what models of its family are called.
        timm_weights: it began with timm's weights.
        loaded_by: the function that loads it.
        settings: of the training, by their names in a recipe.
        test: what the chosen weights reach on the test clips.
        notes: further sentences.
    """

    name: str | None
    backbone: str
    timm_weights: bool
    method: str
    method_options: Mapping[str, Any]
    classes: tuple[str, ...]
    trainable: int
    loaded_by: str = "from_pretrained"
    settings: Mapping[str, Any] = field(default_factory=dict)
    test: SplitScore | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of_run(cls, recipe: Recipe, result: Result) -> "Facts":
        """
        Args:
            recipe: as it is to be shown, without paths of the machine.
        """
        names = ("epochs", "batch_size", "optimiser", "lr", "schedule", "weight_decay", "loss", "mixup", "seed")
        chosen = {
            "validation": f"The weights are those of epoch {result.chosen_epoch}, the best by validation.",
            "last epoch": f"The weights are those of epoch {result.chosen_epoch}, the last.",
            "average": f"The weights are the average of the epochs up to {result.chosen_epoch}.",
        }
        notes = [chosen.get(result.chosen_by, "")]
        if result.broken_files:
            notes.append(f"{len(result.broken_files)} files could not be read and were left out.")
        return cls(
            name=recipe.data,
            backbone=recipe.backbone,
            timm_weights=recipe.weights == "timm",
            method=recipe.method,
            method_options=dict(recipe.method_options),
            classes=tuple(result.classes),
            trainable=result.trainable_parameters,
            settings={name: recipe.to_dict()[name] for name in names} | {"clips": result.train_clips},
            test=result.test,
            notes=tuple(filter(None, notes)),
        )


def write_card(facts: Facts, license: str | None, base_model: str | None) -> str:
    """The text of README.md: YAML that the hub reads, then Markdown."""
    base_model = base_model or (_hub_name(facts.backbone) if facts.timm_weights else None)
    relation = {"base_model_relation": "finetune" if facts.method == "full" else "adapter"} if base_model else {}
    data = ModelCardData(
        license=license,
        library_name="fastloaa",
        pipeline_tag="audio-classification",
        tags=["audio-classification", "adapter", facts.method, "fastloaa"],
        base_model=base_model,
        metrics=[_METRICS[name] for name in _figures(facts)] or None,
        model_name=f"{facts.method} for {facts.name}" if facts.test else None,
        eval_results=_results(facts) or None,
        **relation,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(facts, license)}"))


def _hub_name(backbone: str) -> str | None:
    """The repository of timm's weights."""
    config = timm.get_pretrained_cfg(backbone)
    return config.hf_hub_id if config is not None and config.hf_hub_id and "/" in config.hf_hub_id else None


def _figures(facts: Facts) -> dict[str, float]:
    """The figures that there are, by our names."""
    values = {} if facts.test is None else {name: getattr(facts.test, name) for name in _METRICS}
    return {name: value for name, value in values.items() if value is not None}


def _results(facts: Facts) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="audio-classification",
            dataset_type=str(facts.name),
            dataset_name=str(facts.name),
            dataset_split="test",
            metric_type=_METRICS[name],
            metric_name=name,
            metric_value=value,
        )
        for name, value in _figures(facts).items()
    ]


def _text(facts: Facts, license: str | None) -> str:
    what = {"loaa": "Look-Aside Adapters (LoAA)", "full": "a whole model"}.get(
        facts.method, f"adapters ({facts.method})"
    )
    heading = f"# {what[0].upper()}{what[1:]}" + (f" for {facts.name}" if facts.name else "")
    options = ", ".join(f"{name} {value}" for name, value in facts.method_options.items())
    lines = [
        heading,
        "",
        f"{facts.trainable:,} trained parameters on `{facts.backbone}`" + (f": {options}." if options else "."),
        *facts.notes,
        *_usage(facts),
    ]
    if facts.test is not None:
        lines += ["", "## Figures", "", f"On the {facts.test.clips} test clips of {facts.name}:", ""]
        lines += ["| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in (_figures(facts) | {"loss": facts.test.loss}).items()]
    if facts.settings:
        lines += ["", "## Training", "", "| setting | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in facts.settings.items()]
        lines += ["", "`recipe.yaml` holds all settings; with it and the data the run can be repeated."]
    if facts.classes:
        lines += ["", "## Classes", "", ", ".join(f"`{name.replace('`', chr(39))}`" for name in facts.classes)]
    lines += ["", "## Licence", "", license or "None was given."]
    return "\n".join(lines) + "\n"


def _usage(facts: Facts) -> list[str]:
    load = {
        "from_pretrained": ["from fastloaa.hub import from_pretrained", "", 'model = from_pretrained("OWNER/NAME")'],
        "load_adapter": ["from fastloaa import load_adapter", "", 'load_adapter(model, "OWNER/NAME")'],
    }[facts.loaded_by]
    return ["", "## Use", "", "```python", *load, "```"]
