"""Trained runs and adapters on Hugging Face's hub: pushed with a card that says what they are, and loaded again."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import huggingface_hub
from huggingface_hub.errors import HFValidationError
from torch import nn

from fastloaa.adapters.adapting import present_config, trainable_parameters
from fastloaa.adapters.files import ADAPTER_FILE, load_adapter, save_adapter
from fastloaa.backbones import backbone_of
from fastloaa.errors import FastloaaError
from fastloaa.files import (
    FileError,
    is_repository,
    making_folder,
    not_there,
    read_safetensors,
    understanding,
    write_json,
    writing_temporary,
)
from fastloaa.hub.card import Facts, write_card
from fastloaa.methods import METHODS
from fastloaa.models import AST
from fastloaa.models.architecture import check_architecture
from fastloaa.training import Recipe, Result, RunError, load_run
from fastloaa.training.rundir import RunDirectory

CARD = "README.md"
_READ = ["recipe.yaml", *sorted({method.weights_file for method in METHODS.values()})]


class HubError(FastloaaError, RuntimeError):
    """The hub does not take or give what was asked for."""


def save_pretrained(
    source: str | Path | nn.Module, folder: str | Path, *, license: str | None = None, base_model: str | None = None
) -> Path:
    """Write what `push_to_hub` would upload into a new folder, for a look at it or for another way of sharing.

    Of a run: the weights that training changed, `recipe.yaml` and `result.json` without this machine's paths, the two
    plots, and a card (`README.md`) with data, method, settings and figures. Of a model: its adapters and head, and a
    card. Neither holds the backbone, unless all of it was trained.

    Args:
        source: the folder of a finished run, or a model that `adapt` has adapted.
        folder: new or empty.
        license: the hub's name of it, such as "apache-2.0" or "cc-by-nc-4.0"; the data's terms bear on it.
        base_model: the repository of the backbone's weights, `owner/name`; of a run with `weights: timm` it is known.

    Returns:
        The folder.

    Raises:
        RunError: no finished run.
        ArgumentError: a model that has not been adapted.
        WriteError: it cannot be written.
    """
    with making_folder(folder) as temporary:
        temporary.mkdir(parents=True, exist_ok=True)
        facts = _save_model(source, temporary) if isinstance(source, nn.Module) else _save_run(Path(source), temporary)
        card = write_card(facts, license, base_model)
        (temporary / CARD).write_text(card, encoding="utf-8")
    return Path(folder)


def push_to_hub(
    source: str | Path | nn.Module,
    repo_id: str,
    *,
    license: str | None = None,
    base_model: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload adapters of fastloaa",
) -> str:
    """Upload a run or adapters, see `save_pretrained`, in one commit; the repository is made if there is none.

    Args:
        repo_id: `owner/name`, or a name among your own.
        private, token, revision, create_pr, commit_message: as in `huggingface_hub.HfApi.upload_folder`; the token is
            by default that of `hf auth login`.

    Returns:
        The address of the commit.

    Raises:
        HubError: the hub refuses it or cannot be reached.
        RunError, ArgumentError: as `save_pretrained`.
    """
    api = huggingface_hub.HfApi(token=token)
    with writing_temporary(), TemporaryDirectory() as temporary:
        folder = save_pretrained(source, Path(temporary) / "upload", license=license, base_model=base_model)
        try:
            name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
        except (OSError, HFValidationError) as error:
            raise HubError(f"{repo_id}: cannot be pushed ({' '.join(str(error).split())[:300]})") from error
    return str(commit)


def from_pretrained(
    source: str | Path, weights: str | Path | None = None, *, revision: str | None = None, token: str | None = None
) -> AST:
    """The model that `push_to_hub` or `save_pretrained` wrote, in evaluation mode on the CPU.

    Only safetensors, YAML and JSON are downloaded and read, and nothing in them names a file to be read here. For
    adapters in a model that is no `AST` build the model, then `load_adapter(model, source)`.

    Args:
        source: a repository of the hub, `owner/name`, or a folder.
        weights: of the backbone, a file or "timm", where the run had them from a file, or where there is no run.
        revision, token: of the repository.

    Raises:
        FileError: neither, or files that are missing or damaged.
        RunError: the backbone's weights are needed, and `weights` does not say where they are.
        AdapterError, WeightsError: files that do not fit.
    """
    folder = Path(source)
    if is_repository(source):
        try:
            name = str(source)
            folder = Path(huggingface_hub.snapshot_download(name, revision=revision, token=token, allow_patterns=_READ))
        except (OSError, HFValidationError) as error:
            raise FileError(not_there(source, "a model", error)) from error
    run = RunDirectory(folder)
    if run.recipe.exists():
        recipe = Recipe.load(run.recipe)
        check_architecture(run.recipe, recipe.to_dict())
        if recipe.weights not in (None, "timm") and recipe.method != "full" and weights is None:
            raise RunError(
                f"{source}: was trained beside the backbone's weights in a file {recipe.weights}, which are not with "
                f"it; say where they are: from_pretrained({str(source)!r}, weights=PATH)"
            )
        return load_run(folder, weights)
    file = folder / ADAPTER_FILE
    _, metadata = read_safetensors(file)
    with understanding(file, "an adapter file"):
        config = dict(metadata.get("model") or {})
        if "backbone" not in config:
            raise FileError(
                f"{file}: holds adapters of a model that is no AST; build the model, then load_adapter(model, path)"
            )
        check_architecture(file, config)
        model = AST.from_config(config, weights)
    return load_adapter(model, file).eval()


def _save_run(folder: Path, out: Path) -> Facts:
    run = RunDirectory(folder)
    if not run.result.exists():
        raise RunError(f"{folder}: no result.json in it; expected the folder of a run that has finished")
    recipe, result = Recipe.load(run.recipe), Result.load(run.result)
    weights = run.weights(recipe)
    public = recipe.replace(
        data=Path(recipe.data).name,
        weights=recipe.weights if recipe.weights in (None, "timm") else Path(str(recipe.weights)).name,
    )
    public.save(out / run.recipe.name)
    # What is left out and broken is named by its path; the card says how much it is.
    unnamed = replace(result, data=public.data, left_out=[], broken_files=[], data_fingerprint=None)
    write_json(out / run.result.name, asdict(unnamed))
    shutil.copyfile(weights, out / weights.name)
    for plot in (run.curves, run.confusion):
        if plot.exists():
            shutil.copyfile(plot, out / plot.name)
    return Facts.of_run(public, result)


def _save_model(model: nn.Module, out: Path) -> Facts:
    save_adapter(model, out / ADAPTER_FILE)
    backbone, config = backbone_of(model), present_config(model)
    assert config is not None  # save_adapter has asked
    return Facts(
        name=None,
        backbone=(backbone.config() or {}).get("backbone") or backbone.kind,
        timm_weights=False,
        method="loaa",
        method_options={name: value for name, value in config.to_json().items() if value is not None},
        classes=tuple(getattr(model, "labels", None) or ()),
        trainable=trainable_parameters(model),
        loaded_by="load_adapter" if backbone.config() is None else "from_pretrained",
    )
