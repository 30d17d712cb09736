"""Somebody's loop, without LoAA: a spectrogram transformer, whole, on a folder of sounds; see swap.py.

python examples/swap_before.py SOUNDS OUT
"""

import sys
from pathlib import Path

import soundfile
import timm
import torch
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset
from torchaudio.compliance.kaldi import fbank

FRAMES, MEAN, STD = 512, -4.27, 4.57


class Spectrograms(Dataset):
    def __init__(self, root):
        self.files = sorted(Path(root).glob("*/*.wav"))
        self.labels = sorted({file.parent.name for file in self.files})

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        samples, rate = soundfile.read(self.files[index], dtype="float32")
        log_mel = fbank(torch.from_numpy(samples)[None], num_mel_bins=128, sample_frequency=rate, window_type="hanning")
        log_mel = pad(log_mel, (0, 0, 0, FRAMES))[:FRAMES]
        return ((log_mel - MEAN) / (2 * STD)).T[None], self.labels.index(self.files[index].parent.name)


def main(sounds, out, name="deit_base_distilled_patch16_384", epochs=10, **options):
    torch.manual_seed(0)
    data = Spectrograms(sounds)
    options = {"pretrained": True} | options
    model = timm.create_model(name, img_size=(128, FRAMES), in_chans=1, num_classes=len(data.labels), **options)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for epoch in range(epochs):
        for image, label in DataLoader(data, 12, shuffle=True):
            loss = cross_entropy(model(image), label)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    torch.save(model.state_dict(), out)
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
