"""Whether a model folder still gives the token ids and vectors of a run."""

from pathlib import Path

from embedkit.changes import file_changes, how_to_go_on, show_changes
from embedkit.documents import RunConfig
from embedkit.errors import EmbedkitError
from embedkit.model.folder import model_files
from embedkit.model.tokenizer_file import is_as_in_file
from embedkit.run import RunFolder


def require_same_model(run: RunFolder, config: RunConfig) -> None:
    """Raise EmbedkitError if the model's files are not those of the request, or gave other ids to earlier versions."""
    model = Path(config.locations.model)
    if not model.is_dir():
        raise EmbedkitError(f"{model}: the model's folder is missing; put it back, or start a new run")
    if changes := file_changes("model file", config.request.model_files, model_files(model)):
        raise EmbedkitError(
            f"{model}: its files are no longer those of the run's request (the run's -> now):\n"
            f"{show_changes(changes)}\n{how_to_go_on(run, config)}"
        )
    if not config.request.tokenizer_settings and not is_as_in_file(model):
        raise EmbedkitError(
            f"{model}: it has do_lower_case, add_bos_token or add_eos_token beside tokenizer.json. The version that "
            "made this run ignored them, so its vectors are not the model's; start a new run"
        )
