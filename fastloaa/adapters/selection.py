"""Which of several adapters a model answers with: a choice of the calling thread, not a state of the model."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token

import torch
from torch import Tensor

from fastloaa.errors import ArgumentError

Rows = tuple[list[tuple[str | None, Tensor]], Tensor]


class PerClip:
    """A name for each clip of a batch.

    Attributes:
        names: one for each clip; None: none.
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        self.names = tuple(names)
        self._rows: dict[torch.device, Rows] = {}

    def rows(self, batch: Tensor) -> Rows:
        """The rows of each name [clips of that name], and where in their concatenation the batch's are [batch].

        Raises:
            ArgumentError: another number of clips than of names.
        """
        if len(batch) != len(self.names):
            raise ArgumentError(
                f"{len(self.names)} names of adapters were given for a batch of {len(batch)}; give one for each clip, "
                f"or one for all"
            )
        found = self._rows.get(batch.device)
        if found is None:  # copied to the device once, not by every block
            groups = {name: [row for row, other in enumerate(self.names) if other == name] for name in self.names}
            with torch.inference_mode(False):  # kept for calls in other modes
                rows = [(name, torch.tensor(group, device=batch.device)) for name, group in groups.items()]
                found = self._rows[batch.device] = rows, torch.cat([group for _, group in rows]).argsort()
        return found


Chosen = str | None | PerClip


class Selection:
    """What the parts of one model ask which adapter is meant.

    Args:
        names: those that the model has.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def now(self) -> Chosen:
        """What the calling thread (or asynchronous task) has chosen.

        Raises:
            ArgumentError: nothing.
        """
        try:
            return _CHOSEN.get()[self]
        except KeyError:
            raise ArgumentError(
                f"the model has the adapters {', '.join(self.names)}; say in this thread which one is meant: "
                f"with model_adapters(model, {self.names[0]!r}): ..."
            ) from None

    def choose(self, names: str | Sequence[str | None] | None) -> Token[Mapping["Selection", Chosen]]:
        """Choose for the calling thread; returns what `forget` takes.

        Raises:
            ArgumentError: a name that the model has not.
        """
        listed: list[str | None] = [names] if names is None or isinstance(names, str) else list(names)
        unknown = [name for name in listed if name is not None and name not in self.names]
        if unknown or not listed:
            given = f"no adapter {unknown[0]!r}" if unknown else "no name was given"
            raise ArgumentError(f"{given}; the model has {', '.join(self.names)}, and None is none of them")
        chosen = names if names is None or isinstance(names, str) else PerClip(listed)
        return _CHOSEN.set({**_CHOSEN.get(), self: chosen})

    @staticmethod
    def forget(token: Token[Mapping["Selection", Chosen]]) -> None:
        """Choose what was chosen before."""
        _CHOSEN.reset(token)


_CHOSEN: ContextVar[Mapping[Selection, Chosen]] = ContextVar("fastloaa_adapters", default={})  # noqa: B039 (never changed)
