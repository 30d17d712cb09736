"""Train a small vision transformer on a folder of images: hours of two cores, or minutes of a GPU.

The folder holds train/<class>/… and val/<class>/… . The schedule runs by the clock (--hours) or by passes over the
images (--epochs) and ends annealed either way. Killed, a run goes on from its last checkpoint when it is started again,
here or on another machine; --init starts a new schedule from finished weights.

    python examples/pretrain_images.py --data tiny-imagenet --out runs/images --hours 1.2

In the folder of --out: checkpoint.safetensors, log.jsonl (a line a minute, and one a validation) and, at the end,
model.safetensors, averaged weights in bfloat16 under timm's names, with model.json. No file holds code.
"""

import argparse
import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from timm import create_model
from timm.data import Mixup, create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, accuracy
from torch import Tensor, nn

from fastloaa.files import read_safetensors, write_json, write_safetensors

TICKS = 100_000  # what the schedule is divided into


@dataclass
class Position:
    """How far a run has come."""

    images: int = 0  # shown in training
    updates: int = 0
    seconds: float = 0.0  # of training and validation, over all starts


def main() -> None:
    arguments = parsed()
    accelerator = Accelerator(mixed_precision=arguments.precision)
    if accelerator.num_processes > 1:
        raise SystemExit("this script trains in one process; start it with plain python")
    run = Run(arguments, accelerator)
    run.resume()
    run.train()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with train/<class>/… and val/<class>/…")
    add("--out", type=Path, default=Path("runs/images"), help="where everything is kept")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--hours", type=float, help="length of the schedule, all starts together")
    length.add_argument("--epochs", type=float, help="length of the schedule in passes over the images")
    add("--init", type=Path, help="weights to start from, such as an earlier model.safetensors")
    add("--model", default="deit_tiny_distilled_patch16_224", help="any plain transformer of timm")
    add("--depth", type=int, default=6, help="blocks")
    add("--image-size", type=int, default=128, help="pixels a side that images are brought to")
    add("--batch-size", type=int, default=128)
    add("--opt", default="muon", help="timm's name of the optimiser")
    add("--lr", type=float, default=2e-3)
    add("--weight-decay", type=float, default=0.05)
    add("--warmup", type=float, default=0.03, help="share of the schedule in which the learning rate rises")
    add("--clip", type=float, default=1.0, help="largest norm of the gradient")
    add("--drop-path", type=float, default=0.0)
    add("--patch-drop", type=float, default=0.5, help="share of patches left out: less work an image")
    add("--whole", type=float, default=0.15, help="share of the schedule, at its end, that sees all patches")
    add("--smallest-crop", type=float, default=0.35, help="share of an image's area")
    add("--mixup", type=float, default=0.0, help="alpha of mixup, 0 for none")
    add("--smoothing", type=float, default=0.1, help="of labels")
    add("--ema", type=float, default=0.998, help="decay of the averaged weights")
    add("--workers", type=int, default=1, help="processes that read images")
    add("--precision", choices=("no", "bf16", "fp16"), default="bf16")
    add("--seed", type=int, default=0)
    add("--save-minutes", type=float, default=4.0, help="between checkpoints")
    add("--validate-minutes", type=float, default=15.0, help="between validations on every fifth image")
    return parser.parse_args()


class Run:
    """One training run: what it consists of, and the loop."""

    def __init__(self, arguments: argparse.Namespace, accelerator: Accelerator) -> None:
        self.arguments, self.accelerator = arguments, accelerator
        self.console = Console(soft_wrap=True, stderr=True)
        set_seed(arguments.seed)
        train_data, self.validation_data = (image_folder(arguments.data / name) for name in ("train", "val"))
        self.classes: list[str] = train_data.classes
        if self.classes != self.validation_data.classes:
            raise SystemExit(f"{arguments.data}: train/ and val/ hold different classes")
        self.train_images = len(train_data)
        self.model_options = {
            "img_size": arguments.image_size,
            "depth": arguments.depth,
            "num_classes": len(self.classes),
        }
        model = create_model(
            arguments.model,
            **self.model_options,
            patch_drop_rate=arguments.patch_drop,
            drop_path_rate=arguments.drop_path,
        )
        if arguments.init:
            load_weights(model, arguments.init)
        self.loader = self.made_loader(train_data, is_training=True)
        self.mixup = (
            Mixup(arguments.mixup, label_smoothing=arguments.smoothing, num_classes=len(self.classes))
            if arguments.mixup
            else None
        )
        self.loss = SoftTargetCrossEntropy() if self.mixup else LabelSmoothingCrossEntropy(arguments.smoothing)
        optimiser = create_optimizer_v2(model, opt=arguments.opt, lr=arguments.lr, weight_decay=arguments.weight_decay)
        self.schedule, _ = create_scheduler_v2(
            optimiser,
            sched="cosine",
            num_epochs=TICKS,
            warmup_epochs=round(arguments.warmup * TICKS),
            warmup_lr=arguments.lr / 100,
            warmup_prefix=False,
            min_lr=arguments.lr / 1000,
            step_on_epochs=False,
            updates_per_epoch=1,
        )
        self.plain = model.to(accelerator.device)  # without what accelerate puts around it
        self.ema = ModelEmaV3(self.plain, decay=arguments.ema, use_warmup=True)
        self.model, self.optimiser = accelerator.prepare(model, optimiser)
        self.position = Position()
        self.checkpoint = arguments.out / "checkpoint.safetensors"
        arguments.out.mkdir(parents=True, exist_ok=True)

    def made_loader(self, data: Any, is_training: bool) -> Any:
        size = self.arguments.image_size
        return create_loader(
            data,
            (3, size, size),
            self.arguments.batch_size,
            is_training=is_training,
            scale=(self.arguments.smallest_crop, 1.0),
            color_jitter=None,
            interpolation="bicubic",
            crop_pct=1.0,
            num_workers=self.arguments.workers,
            persistent_workers=self.arguments.workers > 0,
            device=self.accelerator.device,
            use_prefetcher=True,
        )

    def progress(self) -> float:
        """Share of the schedule that is done, by the clock or by images."""
        if self.arguments.hours:
            return self.position.seconds / (self.arguments.hours * 3600)
        return self.position.images / (self.arguments.epochs * self.train_images)

    def train(self) -> None:
        position, arguments = self.position, self.arguments
        logged = saved = validated = position.seconds
        losses: list[Tensor] = []
        before = time.perf_counter()
        with self.shown() as show:
            for images, labels in self.batches():
                if self.progress() >= 1:
                    break
                losses.append(self.update(images, labels))
                now = time.perf_counter()
                position.seconds += now - before
                before = now
                position.images += len(images)
                position.updates += 1
                show(self.progress())
                if position.seconds - logged > 60:
                    self.log(loss=torch.stack(losses).mean().item())
                    losses.clear()
                    logged = position.seconds
                if position.seconds - validated > 60 * arguments.validate_minutes:
                    self.log(**self.validated(every=5))
                    validated = position.seconds
                if position.seconds - saved > 60 * arguments.save_minutes:
                    self.save()
                    saved = position.seconds
        self.save()
        self.finish()

    def finish(self) -> None:
        """Measure the averaged weights on all validation images and write them."""
        result = self.validated(every=1)
        self.log(**result)
        self.console.print(f"top-1 {result['top1']:.1%} of {result['validation_images']:,} validation images")
        weights = {name: tensor.bfloat16() for name, tensor in self.ema.module.state_dict().items()}
        path = self.arguments.out / "model.safetensors"
        write_safetensors(path, weights, {})
        described = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "model": self.arguments.model,
            "options": self.model_options,
            **result,
            **asdict(self.position),
            "classes": self.classes,
        }
        write_json(path.with_suffix(".json"), described)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end. A pass that a kill cut short is not finished: the images are shuffled anew."""
        set_seed(self.arguments.seed + self.position.updates)
        while True:
            yield from self.loader

    def update(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimiser; the batch's loss."""
        done = self.progress()
        self.schedule.step_update(int(done * TICKS))
        if done > 1 - self.arguments.whole:
            self.plain.patch_drop = nn.Identity()
        if self.mixup:
            images, labels = self.mixup(images, labels)
        loss = self.loss(self.model(images), labels)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.arguments.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update(self.plain, step=self.position.updates)
        return loss.detach()

    @torch.no_grad()
    def validated(self, every: int) -> dict[str, float]:
        """Accuracy of the averaged weights on every so-manyth validation image."""
        data = copy.copy(self.validation_data)
        data.samples = data.samples[::every]
        loader = self.made_loader(data, is_training=False)
        self.ema.module.eval()
        right = count = loss_sum = 0.0
        for images, labels in loader:
            with self.accelerator.autocast():
                logits = self.ema.module(images)
            right += accuracy(logits.float(), labels)[0].item() / 100 * len(labels)
            loss_sum += nn.functional.cross_entropy(logits.float(), labels, reduction="sum").item()
            count += len(labels)
        return {"top1": right / count, "validation_loss": loss_sum / count, "validation_images": int(count)}

    def log(self, **values: Any) -> None:
        line = {"progress": round(self.progress(), 4), **asdict(self.position), **values}
        with (self.arguments.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        state = self.optimiser.state_dict()["state"]
        tensors = {
            f"optimiser/{index}/{name}": torch.as_tensor(v) for index, of in state.items() for name, v in of.items()
        }
        tensors |= {f"model/{name}": tensor for name, tensor in self.plain.state_dict().items()}
        tensors |= {f"ema/{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        write_safetensors(self.checkpoint, tensors, {"position": asdict(self.position), "opt": self.arguments.opt})

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self.checkpoint.is_file():
            return
        tensors, metadata = read_safetensors(self.checkpoint)
        parts: dict[str, dict[str, Any]] = {"optimiser": {}, "model": {}, "ema": {}}
        for entry, tensor in tensors.items():
            part, name = entry.split("/", 1)
            parts[part][name] = tensor
        self.plain.load_state_dict(parts["model"])
        self.ema.module.load_state_dict(parts["ema"])
        state: dict[int, dict[str, Any]] = {}
        for entry, tensor in parts["optimiser"].items():
            index, name = entry.split("/")
            state.setdefault(int(index), {})[name] = tensor.item() if tensor.dtype == torch.bool else tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.position = Position(**metadata["position"])
        self.console.print(f"going on from {self.checkpoint}: {self.position.images:,} images seen")

    @contextmanager
    def shown(self) -> Iterator[Callable[[float], None]]:
        """A progress bar."""
        columns = (*Progress.get_default_columns(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task("images", total=1.0)
            yield lambda done: progress.update(task, completed=done)


def image_folder(folder: Path) -> Any:
    """torchvision's data set of a folder whose subfolders are the classes; images may lie deeper in them."""
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder; --data needs train/<class>/… and val/<class>/…")
    return create_dataset("torch/image_folder", folder)


def load_weights(model: nn.Module, path: Path) -> None:
    """Weights under timm's names into `model`; a head for other classes starts anew."""
    weights, _ = read_safetensors(path)
    own = model.state_dict()
    fitting = {name: w for name, w in weights.items() if name in own and w.shape == own[name].shape}
    if missing := {name for name in own.keys() - fitting.keys() if not name.startswith("head")}:
        raise SystemExit(f"{path}: not weights of this transformer, {min(missing)} is missing or of another shape")
    model.load_state_dict(fitting, strict=False)


if __name__ == "__main__":
    main()
