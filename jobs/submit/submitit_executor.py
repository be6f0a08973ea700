"""The script for sbatch, written by submitit: the only module that uses one of submitit's private methods.

submitit's public `submit` pickles one call per task of an array. Here one script serves the whole array, and tasks
take their shard from the array index: a rerun of three tasks of a thousand writes one small file, and the cluster
unpickles nothing. submitit writes such a script only in `_make_submission_file_text`, which is private.
tests/jobs/submit/test_submitit_executor.py compares its output for the lowest and the newest release.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import submitit


class ScriptExecutor(submitit.SlurmExecutor):
    """submitit's Slurm executor for a script that starts a Python module."""

    def __init__(
        self, folder: Path, job_name: str, setup: Sequence[str], options: Mapping[str, str | int | bool]
    ) -> None:
        """Set the parameters of the script.

        Args:
            folder: where submitit would put its own files; it writes none here.
            job_name: the name of the job.
            setup: lines of shell before the module starts.
            options: long options of sbatch by name; True for an option without a value.
        """
        super().__init__(folder)
        self.update_parameters(
            job_name=job_name,
            time=None,  # in options, or the site's default
            wckey=None,  # some sites refuse submitit's own default
            use_srun=False,  # the script becomes the task: signals, exit codes and cgroups need no step in between
            stderr_to_stdout=True,
            setup=list(setup),
            additional_parameters=dict(options),
        )

    @classmethod
    def affinity(cls) -> int:
        """Let the script be written where there is no Slurm."""
        return 2

    def text(self, start: str, module: str, arguments: str) -> str:
        """The script, which ends with `start -u -m module arguments`: words of shell, Python the last of `start`."""
        return str(self._make_submission_file_text(f"{start} -u -m {module} {arguments}", ""))
