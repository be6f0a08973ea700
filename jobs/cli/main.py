"""The command line: the group of all commands, the messages of its errors, and its entry point."""

import io
import logging
import os
import shutil
import sys
from pathlib import Path

import click

import embedkit
from embedkit.errors import EmbedkitError, Interrupted
from embedkit.job import enter_job
from jobs.cli.lazy_group import LazyCommand, LazyGroup
from jobs.os_errors import describe_os_error
from jobs.output import escape_unprintable, log_to_stderr, print_error, print_note, print_traceback
from jobs.slurm_environment import job_of_this_process

SECTIONS = {
    "On this machine": (
        LazyCommand("fetch", "jobs.cli.fetch", "Fetch data set and model from the Hub and create the run."),
        LazyCommand("run", "jobs.cli.run", "Prepare, embed and merge on this machine."),
        LazyCommand("prepare", "jobs.cli.prepare", "Create a run and prepare it."),
        LazyCommand("update", "jobs.cli.update", "Make the next run of data that changed, and reuse vectors."),
        LazyCommand("embed", "jobs.cli.embed", "Embed the unfinished shards in this process."),
        LazyCommand("merge", "jobs.cli.merge", "Check all shards and merge them."),
        LazyCommand("curve", "jobs.cli.curve", "Measure how fast this machine's GPU embeds, by length."),
    ),
    "On a cluster": (
        LazyCommand("submit", "jobs.cli.submit", "Submit a whole run to Slurm."),
        LazyCommand("rerun", "jobs.cli.rerun", "Submit the unfinished part of a run again."),
        LazyCommand("cancel", "jobs.cli.cancel", "Cancel all queued and running jobs of a run."),
        LazyCommand("profile", "jobs.cli.profile", "Check site profiles: the resources that jobs request."),
    ),
    "Looking at a run": (
        LazyCommand("status", "jobs.cli.status", "Show progress, problems and the next command to type."),
        LazyCommand("logs", "jobs.cli.logs", "Show the last lines of a run's logs."),
        LazyCommand("report", "jobs.cli.report", "Show what a run cost, per stage, shard and attempt."),
        LazyCommand("verify", "jobs.cli.verify", "Read every byte of a run again and list problems."),
        LazyCommand("analyze", "jobs.cli.analyze", "Analyze the vectors of a merged run and write a page."),
        LazyCommand("view", "jobs.cli.view", "Serve the page of a run with whole texts and search."),
        LazyCommand("search", "jobs.cli.search", "Find the rows nearest to a text."),
        LazyCommand("neighbors", "jobs.cli.search", "Find the rows nearest to a row of the run."),
        LazyCommand("select", "jobs.cli.select", "Select a subset: rows that cover the others, or an even sample."),
        LazyCommand("dedup", "jobs.cli.dedup", "Decide which near-duplicates to remove."),
        LazyCommand("export", "jobs.cli.export", "Export vectors in other forms, for other tools."),
        LazyCommand("diff", "jobs.cli.diff", "Compare the vectors of two runs, or a run with an engine."),
        LazyCommand("compare", "jobs.cli.compare", "Compare two models, or two views, on the same rows."),
        LazyCommand("coverage", "jobs.cli.coverage", "Find out how much of another run's data this one covers."),
        LazyCommand("certify", "jobs.cli.certify", "Find out whether an engine gives the vectors of a run."),
        LazyCommand("index", "jobs.cli.index", "Add row keys to a run of an earlier version, for --reuse."),
    ),
}


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(embedkit.__version__, prog_name="embedkit")
def cli() -> None:
    """One checked embedding for every row of a chat data set.

    RUN is the name of a run or the path of its folder. A name that is a run both
    here and in --output-dir is refused: type one of the paths.

    \b
    Exit codes:
      0    success
      1    failure; also: status of an unfinished run, verify with problems,
           profile check with a refused setting
      2    usage error
      130  interrupted
    """


def main() -> None:
    """Entry point of the console script."""
    _restart_in_utf8()
    escape_unprintable()
    sys.excepthook = print_traceback
    log_to_stderr(logging.WARNING, "%(levelname)s %(message)s")
    os.environ["EMBEDKIT_PROGRAM"] = _program()
    enter_job(job_of_this_process())
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        print_note(shown.getvalue().rstrip("\n"))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        sys.exit(Interrupted.exit_code)
    except EmbedkitError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        described = describe_os_error(error)
        if described is None:
            raise
        print_error(described)
        sys.exit(1)


def _restart_in_utf8() -> None:
    """Start this command again in Python's UTF-8 mode if the locale cannot name every file, as ISO-8859-1 cannot.

    The folders of sources are named in UTF-8 whoever merges. Jobs inherit the variable.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606


def _program() -> str:
    """Return how the person called this program, so that printed commands can be typed."""
    typed = sys.argv[0]
    if Path(typed).name != "embedkit":
        return "embedkit"
    found = shutil.which("embedkit")
    return "embedkit" if found and Path(found).samefile(typed) else typed
