"""transformers' Trainer on a folder of sounds, one folder per class: python examples/hf_trainer.py SOUNDS OUT"""

import sys

from transformers import ASTFeatureExtractor, ASTForAudioClassification, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from fastloaa import adapt, save_adapter
from fastloaa.callbacks import AdapterCheckpoints
from fastloaa.data import load_splits, read_clip

PRETRAINED = "MIT/ast-finetuned-audioset-10-10-0.4593"


def main(sounds, out, pretrained=PRETRAINED, **options):
    set_seed(0)
    splits = load_splits(sounds)
    extractor = ASTFeatureExtractor.from_pretrained(pretrained)
    labels = dict(enumerate(splits.classes))
    model = ASTForAudioClassification.from_pretrained(pretrained, id2label=labels, ignore_mismatched_sizes=True)
    adapt(model)

    def features(clips):
        inputs = extractor([read_clip(clip).numpy() for clip in clips], sampling_rate=16000)["input_values"]
        return [{"input_values": x, "labels": clip.labels[0]} for x, clip in zip(inputs, clips, strict=True)]

    arguments = TrainingArguments(out, save_strategy="epoch", report_to=[], **{"learning_rate": 5e-4} | options)
    # Without the callback, transformers 5 brings none of the layers' weights back from its own checkpoints.
    trainer = Trainer(model, arguments, train_dataset=features(splits.train), callbacks=[AdapterCheckpoints()])
    trainer.train(resume_from_checkpoint=get_last_checkpoint(out))  # the same command goes on where it stopped
    save_adapter(model, f"{out}/adapter.safetensors")
    tested = trainer.predict(features(splits.test))
    print(f"accuracy {(tested.predictions.argmax(1) == tested.label_ids).mean():.1%}")
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
