"""What was done to a model, kept with the model."""

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from fastloaa.adapters.config import AdaptConfig
from fastloaa.adapters.selection import Selection

_NAME = "fastloaa_record"


@dataclass(frozen=True)
class Record:
    """Immutable, so that copies of a model may share it; no part of the state dict.

    Attributes:
        adapted: how `adapt` put adapters in; None: it did not, or `merge` dissolved them.
        names_before: what another of `fastloaa.methods` has inserted: the names of the blocks' parameters now, and
            before.
        trained: the names of the parameters that it trains: what it has inserted, and the head.
        by_peft: Hugging Face peft has put adapters in, by `fastloaa.peft`, and knows which.
        selection: `name_adapters` has put several in, of which this says which is meant.
        merged_from: what `merge` made the model from, see `fastloaa.export.merged_from`.
    """

    adapted: AdaptConfig | None = None
    names_before: dict[str, str] | None = None
    trained: frozenset[str] = frozenset()
    by_peft: bool = False
    selection: Selection | None = None
    merged_from: dict[str, Any] | None = None


def record_of(model: nn.Module) -> Record:
    """What was done to `model`; an empty record if nothing was."""
    return cast(Record, getattr(model, _NAME, Record()))


def note(model: nn.Module, **changes: Any) -> None:
    """Change fields of the record of `model`."""
    setattr(model, _NAME, replace(record_of(model), **changes))


def adapt_config(model: nn.Module) -> AdaptConfig | None:
    """How `model` has been adapted, None if it has not."""
    return record_of(model).adapted


def is_adapted(model: nn.Module) -> bool:
    """Whether adapters, or what another of `fastloaa.methods` inserts, are in `model`."""
    record = record_of(model)
    if record.by_peft or record.selection is not None:
        return True
    return record.adapted is not None or record.names_before is not None
