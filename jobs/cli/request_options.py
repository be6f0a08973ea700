"""The options that describe a run: which data, which model, and how they are embedded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

import click

from embedkit.documents import ChatFormat, Device, Dtype, EngineName, Kernels, Layout, Texts, ThinkFormat
from jobs.cli.options import (
    DEVICES,
    ENGINES,
    gathered_into,
    output_dir_option,
    unescape_newlines,
    with_options,
    without_repeats,
)
from jobs.cli.typed_views import TypedView, typed_views

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """The values of the request options.

    typed: names of the options that were typed. A resumed run takes its own settings for all others.
    """

    dataset: tuple[str, ...]
    config: str | None
    split: str | None
    revision: str | None
    messages_column: str | None
    chat_format: ChatFormat
    text_columns: tuple[str, ...]
    source_column: str | None
    model: str | None
    model_revision: str | None
    prompt: str | None
    prefix: str | None
    engine: EngineName | None
    views: tuple[TypedView, ...]
    max_length: int | None
    sample_size: int
    full: bool
    random_seed: int | None
    shards: int | None
    num_gpus: int | None
    texts: Texts
    think_format: ThinkFormat
    device: Device | None
    dtype: Dtype | None
    kernels: Kernels | None
    exact: bool
    layout: Layout
    store: Dtype
    reuse: tuple[str, ...]
    reuse_across_engines: bool
    curve: Path | None
    output_dir: Path
    run_name: str | None
    resume: bool
    overwrite: bool
    typed: frozenset[str] = frozenset()


REQUEST_OPTIONS = [
    click.option("--dataset", multiple=True,
                 help="Data set of the Hub (owner/name or hf://owner/name), or files of Parquet, JSON, Arrow or "
                 "CSV (file, folder or glob; repeatable)."),
    click.option("--config", help="Configuration of a Hub data set.  [default: its only or default one]"),
    click.option("--split", help="Split of a Hub data set, or of a folder that `datasets` saved; `all` for every "
                 "split.  [default: train on the Hub, or the only one]"),
    click.option("--revision", help="Commit, tag or branch of a Hub data set. The run records the commit."),
    click.option("--messages-column", help="Column with the chats; a field of one by dots.  [default: messages, "
                 "conversations or conversation, or the only column with chats]"),
    click.option("--format", "chat_format", type=click.Choice(get_args(ChatFormat)[1:]), default="auto",
                 show_default=True, help="How chats are written. openai: role and content. sharegpt: from and value. "
                 "auto: either, message by message."),
    click.option("--text-column", "text_columns", multiple=True, callback=without_repeats,
                 help="Column with plain text, in place of chats; repeatable: joined by a blank line. Not with "
                 "--messages-column."),
    click.option("--source-column", help="Column with the source; also of a folder name=value in the path.  [default: "
                 "dataset_source, else the name of the file]"),
    click.option("--model", help="Folder of the model, or model of the Hub (owner/name or hf://owner/name). The hash "
                 "engine needs only its tokenizer."),
    click.option("--model-revision", help="Commit, tag or branch of a Hub model. The run records the commit."),
    click.option("--prompt", metavar="NAME", help="Put the model's prompt of this name before the text of each row.  "
                 "[default: the model's default prompt, if it has one]"),
    click.option("--prefix", callback=unescape_newlines, help="Put this text before the text of each row. \\n is a new "
                 "line. Not with --prompt."),
    click.option("--engine", type=click.Choice(ENGINES),
                 help="transformers: the same vectors without vLLM, but slower. hash: for trials; its vectors have no "
                 "meaning.  [default: vllm if it is installed, else transformers]"),
    click.option("--view", "views", multiple=True, default=("combined",), show_default=True, callback=typed_views,
                 metavar="NAME[=TEMPLATE]",
                 help="Text to embed: combined, think, response, or NAME=TEMPLATE; repeatable. One matrix per view. In "
                 "a template, {NAME} is a column, or user_prompt, think_text or response_text of the chat; {{ and }} "
                 "are braces, \\n is a new line."),
    click.option("--max-length", type=click.IntRange(1),
                 help="Most tokens per row. Longer rows are dropped, not truncated.  [default: the model's limit]"),
    click.option("--sample-size", type=click.IntRange(1), default=625, show_default=True, help="Rows per source."),
    click.option("--full", is_flag=True, help="All rows of all sources. Not with --sample-size."),
    click.option("--random-seed", type=int, help="Sample at random; the same seed gives the same rows on every "
                 "machine.  [default: the first rows of each source]"),
    click.option("--shards", type=click.IntRange(1),
                 help="Number of shards.  [default: one per half hour of GPU time]"),
    click.option("--num-gpus", type=click.IntRange(1), help="GPUs to use at once. Without GPUs: worker processes.  "
                 "[default: all GPUs of this machine, else 1; 8 on a cluster]"),
    click.option("--texts", type=click.Choice(get_args(Texts)), default="all", show_default=True,
                 help="all: metadata.parquet has the texts too. none: only extracted_data.parquet has them."),
    click.option("--think-format", type=click.Choice(get_args(ThinkFormat)), default="any", show_default=True,
                 help="any: the reasoning of an answer is also found in fields of its message and between tags other "
                 "than <think> and </think>. classic: only between these two, with roles as they are "
                 "written and without calls of tools."),
    click.option("--device", type=click.Choice(DEVICES), help="Device of the engine.  [default: cuda if the embed "
                 "stage of the profile gets GPUs; without a profile, if this machine has GPUs that the engine can use; "
                 "else cpu]"),
    click.option("--dtype", type=click.Choice(get_args(Dtype)), help="Data type the engine computes "
                 "in.  [default: bfloat16 on a GPU, else float32]"),
    click.option("--kernels", type=click.Choice(get_args(Kernels)), help="Kernels of vLLM's model. fused: those of "
                 "embedkit for Qwen3 on Hopper GPUs, which are faster; on other GPUs the plain ones run.  [default: "
                 "fused if they fit the model, on a GPU]"),
    click.option("--exact", is_flag=True, help="A text has the same vector to the bit whatever is embedded beside it: "
                 "with any number of shards, and after a kill. Needs fused kernels, and GPUs of one model."),
    click.option("--store", type=click.Choice(get_args(Dtype)), default="float32", show_default=True,
                 help="Data type of the stored vectors. bfloat16 and float16 take half the bytes, and need an engine "
                 "that computes in no more digits (--dtype)."),
    click.option("--layout", type=click.Choice(get_args(Layout)), default="merged", show_default=True,
                 help="merged: one matrix of all vectors, and one per source. sharded: the vectors stay in the shards' "
                 "files, for many millions of rows."),
    click.option("--reuse", multiple=True, callback=without_repeats, metavar="RUN", help="Copy the vectors of a merged "
                 "run for texts with the same token ids; repeatable. Model and engine must be the same."),
    click.option("--reuse-across-engines", is_flag=True, help="With --reuse: also with an engine that a passed "
                 "certificate of that run names (`embedkit certify`)."),
    click.option("--curve", type=click.Path(path_type=Path), metavar="FILE", help="Speeds of the GPU that embeds, as "
                 "`embedkit curve` wrote them: shards and predicted hours follow them.  [default: the profile's curve, "
                 "else those of an H200]"),
    output_dir_option,
    click.option("--run-name", help="Name of the run's folder.  [default: made from data set, model and sample]"),
    click.option("--resume", is_flag=True, help="Continue an existing run. Settings that are not given are the run's."),
    click.option("--overwrite", is_flag=True, help="Delete the existing run of this name completely and start again."),
]  # fmt: skip


def request_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the request options; it gets them as RequestOptions, its first argument."""
    return with_options(REQUEST_OPTIONS, gathered_into(RequestOptions)(command))
