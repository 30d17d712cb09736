"""Lightning on a folder of sounds, one folder per class: python examples/lightning_module.py SOUNDS OUT"""

import sys

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, DistributedSampler

from fastloaa import AST, adapt
from fastloaa.data import ClipDataset, collate, load_splits


class Adapted(lightning.LightningModule):
    def __init__(self, **model):
        super().__init__()
        self.model = adapt(AST(**model))
        self.strict_loading = False  # checkpoints leave out what is frozen

    def training_step(self, batch):
        log_mel = self.model.front_end(batch.waveform, batch.lengths)  # on the model's device
        return torch.nn.functional.cross_entropy(self.model(log_mel), batch.targets)

    def configure_optimizers(self):
        return torch.optim.AdamW((p for p in self.parameters() if p.requires_grad), lr=5e-4)

    def on_save_checkpoint(self, checkpoint):
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        checkpoint["state_dict"] = {name: t for name, t in checkpoint["state_dict"].items() if name not in frozen}


def main(sounds, out, epochs=10, **model):
    lightning.seed_everything(0)
    splits = load_splits(sounds)
    module = Adapted(num_classes=len(splits.classes), **{"weights": "timm"} | model)
    clips = ClipDataset(splits.train, 16000, len(splits.classes))
    order = DistributedSampler(clips, 1, 0)  # a new order each epoch, also of a run that goes on
    trainer = lightning.Trainer(max_epochs=epochs, logger=False, callbacks=[ModelCheckpoint(out, save_last=True)])
    trainer.fit(module, DataLoader(clips, 16, sampler=order, collate_fn=collate), ckpt_path="last")
    return module.model


if __name__ == "__main__":
    main(*sys.argv[1:])
