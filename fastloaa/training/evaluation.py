"""How well a model does on clips."""

from collections.abc import Sequence

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from fastloaa.audio import LOG_MEL_RATE, SpectrogramFrontEnd
from fastloaa.data import (
    BrokenFiles,
    Clip,
    ClipDataset,
    ClipList,
    DataError,
    Sample,
    are_log_mels,
    collate,
    start_worker,
)
from fastloaa.models import AST
from fastloaa.training.distributed import gather_rows, own_share
from fastloaa.training.errors import TrainingError
from fastloaa.training.loss import PROBABILITIES, clip_losses
from fastloaa.training.precision import autocast, resolve_precision
from fastloaa.training.recipe import Loss, Precision
from fastloaa.training.scores import Evaluation, score


def evaluate(
    model: AST,
    clips: Sequence[Clip],
    *,
    batch_size: int = 48,
    workers: int = 0,
    loss: Loss | None = None,
    precision: Precision = "auto",
    multi_label: bool = False,
    views: int = 1,
) -> Evaluation:
    """Run `model` over `clips` where it is, without augmentation; the model's mode is left as it was.

    In several processes (`accelerate launch`, `torchrun`) all of them call it: each runs its share of the clips, and
    all get the whole result.

    Args:
        batch_size, workers: of the DataLoader.
        loss: "cross_entropy" or "bce"; None: the one that the model's probabilities are of.
        precision: as in a `Recipe`.
        multi_label: clips may have several labels; there is no accuracy then.
        views: windows of a clip longer than the model's frames, evenly from its start to its end, whose logits are
            averaged; 1 is the start alone.

    Raises:
        DataError: clips with several labels unless `multi_label`, or not one that can be read.
        TrainingError: the model's answers are not finite.
    """
    own: Loss = "bce" if model.probabilities == PROBABILITIES["bce"] else "cross_entropy"
    loader = evaluation_loader(model, clips, batch_size, workers, multi_label, views)
    return evaluate_batches(model, loader, loss=loss or own, precision=precision, multi_label=multi_label)


def evaluation_loader(
    model: AST, clips: Sequence[Clip], batch_size: int, workers: int, multi_label: bool = False, views: int = 1
) -> DataLoader[Sample]:
    """Batches of the clips in their order; a loader that is used again decodes no file twice, memory allowing.

    Of several processes each has batches of its share of the clips.
    """
    dataset = clip_dataset(model.front_end, clips[own_share(len(clips))], model.num_classes, multi_label)
    places = torch.linspace(0, 1, views).tolist()  # of one, 0.0

    def windows(index: int) -> Sequence[float]:
        return places if views > 1 and dataset.is_cut(index) else (0.0,)

    return DataLoader(
        dataset,
        batch_size,
        sampler=[(index, place) for index in range(len(dataset)) for place in windows(index)],
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=start_worker,
        persistent_workers=workers > 0,
    )


def clip_dataset(
    front_end: SpectrogramFrontEnd, clips: Sequence[Clip], num_classes: int, multi_label: bool = False
) -> ClipDataset:
    """The clips at the rate of the front end, cut to what it reads.

    Raises:
        DataError: clips with several labels unless `multi_label`, or spectrograms for a front end that reads
            recordings, and the other way round.
    """
    if clips and are_log_mels(clips) != (front_end.reads == "log_mel"):
        kinds = ["recordings", "spectrograms from files"]
        wanted, given = kinds if front_end.reads == "waveform" else kinds[::-1]
        raise DataError(f"the model was made for {wanted}, and {clips[0]} is of {given}; give data of its kind")
    clips = ClipList.of(clips)
    several = clips.labels.lengths != 1
    if several.any() and not multi_label:
        clip = clips[int(several.argmax())]
        raise DataError(f"{clip} has {len(clip.labels)} labels, expected one; multi_label=True takes several")
    if front_end.reads == "waveform":
        return ClipDataset(clips, front_end.sample_rate, num_classes, front_end.samples / front_end.sample_rate)
    # Clips count the time of stored spectrograms at one rate, whatever the front end says of its own.
    seconds = front_end.samples / LOG_MEL_RATE
    return ClipDataset(clips, LOG_MEL_RATE, num_classes, seconds, mel_bins=front_end.mel_bins)


@torch.inference_mode()
def evaluate_batches(
    model: AST, loader: DataLoader[Sample], *, loss: Loss, precision: Precision, multi_label: bool = False
) -> Evaluation:
    """`evaluate` over a loader from `evaluation_loader`."""
    device = next(model.parameters()).device
    precision = resolve_precision(precision, device)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []  # (logits, targets, indices) of a batch
    errors: dict[int, str] = {}  # the first that a clip's windows gave
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for batch in loader:
            for index, error in zip(batch.broken_indices, batch.broken, strict=True):
                errors.setdefault(index, error)
            if len(batch):
                batch = batch.to(device)
                log_mel = model.front_end(batch.waveform, batch.lengths)
                with autocast(precision, device):
                    logits = model(log_mel).float()
                rows.append((logits, batch.targets, batch.indices))
    finally:
        for module, mode in modes:  # a frozen part may have another than the rest
            module.training = mode
    broken = dict.fromkeys(gather_object(list(errors.values())))
    none = torch.zeros(0, model.num_classes, device=device)
    all_rows = zip((none, none, none[:, 0].long()), *rows, strict=True)
    logits, targets, indices = map(torch.cat, all_rows)
    unread = torch.tensor([*errors], dtype=indices.dtype, device=device)
    whole = torch.isin(indices, unread, invert=True)  # also where some windows of a clip could be read
    logits, targets = (gather_rows(part) for part in _mean_of_views(logits[whole], targets[whole], indices[whole]))
    if not len(logits):
        BrokenFiles(len(broken)).add(broken, range(len(broken)))  # which raises, if there are any
        raise DataError("there are no clips; none is left, check the data")
    losses = clip_losses(logits, targets, loss)
    if not losses.isfinite().all():
        raise TrainingError(f"the model's loss is {losses.mean()}, expected a finite one; its weights are not usable")
    return score(logits, targets, losses, loss=loss, multi_label=multi_label, broken=tuple(broken))


def _mean_of_views(logits: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of windows -> rows of clips, in the order of their indices."""
    _, clip, windows = torch.unique(indices, return_inverse=True, return_counts=True)
    means = logits.new_zeros(len(windows), logits.shape[1]).index_add_(0, clip, logits) / windows[:, None]
    return means, torch.empty_like(means).index_copy_(0, clip, targets)
