"""Adapters in the checkpoints of Hugging Face transformers' Trainer."""

from pathlib import Path
from typing import Any

from torch import nn

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    advice = "fastloaa.callbacks needs transformers, which is not installed: pip install 'fastloaa[transformers]'"
    raise ModuleNotFoundError(advice, name="transformers") from error

from fastloaa.adapters.files import ADAPTER_FILE, load_adapter, save_adapter
from fastloaa.files import FileError


class AdapterCheckpoints(TrainerCallback):
    """Keeps the adapters and head of an adapted model in each checkpoint of a `Trainer`, and brings them back from it.

        trainer = Trainer(adapt(model), arguments, train_dataset=clips, callbacks=[AdapterCheckpoints()])
        trainer.train(resume_from_checkpoint=True)

    A checkpoint of transformers 5 holds the layers of its AST under the names that older versions gave them, and its
    `Trainer` looks for today's names: on resuming, or with `load_best_model_at_end`, none of the layers' weights come
    back, adapters included, and a warning of missing keys is all that says so. This reads the adapters from
    `adapter.safetensors`, which `save_adapter` writes beside what transformers writes. Models in which peft put the
    adapters (`fastloaa.peft`) need no callback, since peft saves them itself.

    Raises:
        FileError: on resuming, where the checkpoint has no such file; it is looked for in
            `output_dir/checkpoint-<step>`.
        ArgumentError: on saving, a model that has not been adapted.
        AdapterError: the checkpoint is of another backbone.
    """

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            save_adapter(model, _file(_checkpoint(args, state)))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        if state.global_step:  # resumed, by now with what the Trainer could restore
            _restore(model, _checkpoint(args, state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        if args.load_best_model_at_end and state.best_model_checkpoint:
            _restore(model, Path(state.best_model_checkpoint))


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder of the checkpoint after the current step."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _file(checkpoint: Path) -> Path:
    return checkpoint / ADAPTER_FILE


def _restore(model: nn.Module, checkpoint: Path) -> None:
    file = _file(checkpoint)
    if not file.exists():
        raise FileError(
            f"{file}: no such file, so the checkpoint's adapters cannot be brought back; resume from one that a "
            "Trainer with AdapterCheckpoints wrote into its output_dir"
        )
    load_adapter(model, file)
