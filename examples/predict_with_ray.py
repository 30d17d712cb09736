"""A table of what is heard in many recordings, by all machines of a Ray cluster.

    pip install 'fastloaa[onnx]' 'ray[data]'
    python examples/predict_with_ray.py model.onnx recordings table --workers 2

Without a cluster it runs on this machine. On one, model and recordings are in a folder that all machines share, and the
parts of the table are written there. `fastloaa predict recordings --out table.parquet` is the same on one machine.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyarrow

from fastloaa.data.sounds import LeftOut, sounds_below
from fastloaa.export import Classifier

SCHEMA = pyarrow.schema(
    {
        "file": pyarrow.string(),
        "labels": pyarrow.list_(pyarrow.string()),
        "probabilities": pyarrow.list_(pyarrow.float32()),
        "seconds": pyarrow.float64(),
        "error": pyarrow.string(),
    }
)


class Predict:
    """One model in each of Ray's workers, for all batches of paths that it is given."""

    def __init__(self, model: str) -> None:
        self.classifier = Classifier(model)

    def __call__(self, paths: pyarrow.Table) -> Iterator[pyarrow.Table]:
        answers = list(self.classifier.classify(paths["file"].to_pylist(), workers=2))
        columns = {
            "file": [str(answer.path) for answer in answers],
            "labels": [answer.labels for answer in answers],
            "probabilities": [answer.probabilities for answer in answers],
            "seconds": [answer.seconds for answer in answers],
            "error": [answer.error for answer in answers],
        }
        yield pyarrow.table(columns, SCHEMA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ONNX file that `fastloaa export` wrote")
    parser.add_argument("recordings", type=Path, help="a folder")
    parser.add_argument("table", type=Path, help="folder for the parts of the table, in parquet")
    parser.add_argument("--workers", type=int, default=2, help="models at a time, on all machines together")
    parser.add_argument(
        "--cpus", type=float, default=0.5, help="that Ray sets aside for each of them; it needs some for itself"
    )
    parser.add_argument("--files", type=int, default=256, help="in a batch: what is lost where a machine fails")
    arguments = parser.parse_args()
    paths = [str(path.resolve()) for path in sounds_below(arguments.recordings, LeftOut())]
    if not paths:
        parser.error(f"{arguments.recordings}: a folder without sound files")
    import ray  # takes a while

    (
        ray.data.from_items([{"file": path} for path in paths], override_num_blocks=-(-len(paths) // arguments.files))
        .map_batches(
            Predict,
            fn_constructor_args=[str(arguments.model.resolve())],
            batch_format="pyarrow",
            batch_size=arguments.files,
            num_cpus=arguments.cpus,
            compute=ray.data.ActorPoolStrategy(size=arguments.workers),
        )
        .write_parquet(str(arguments.table.resolve()))
    )


if __name__ == "__main__":
    main()
