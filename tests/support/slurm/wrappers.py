"""Wrapper scripts that a site may put before Slurm's commands, for tests: first in PATH, they change the answers."""

import os
import shutil
from pathlib import Path

SBATCH_LOSES_THE_ANSWER = """\
# accepts the job, then says what a busy controller says
real "$@" >/dev/null
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""
SBATCH_DROPS_COMMENTS = (
    """\
# no comment reaches Slurm
path="${!#}"
sed -i '/^#SBATCH --comment/d' "$path"
"""
    + SBATCH_LOSES_THE_ANSWER
)
SBATCH_WITH_A_BANNER = r"""
out=$(real "$@") || exit 1
printf '\033[1mWelcome!\033[0m Your job 1000 used 7 hours.\r\nProject balance:\r\n1000\r\n'
echo "Submitted batch job ${out%;*} on cluster here"
echo "Goodbye from job 1000"
echo "warning: the file system is 91 % full" >&2
"""
SBATCH_WITH_ONLY_THE_ID = """\
set -- "${!#}"
real "$@" | sed 's/Submitted batch job //'
"""
SBATCH_SAYS_NOTHING = 'real "$@" >/dev/null'
SBATCH_HANGS_AFTER_ACCEPTING = 'real "$@" >/dev/null; sleep 600'
SBATCH_HANGS_BEFORE_ACCEPTING = 'sleep 600; real "$@"'
SBATCH_TRIES_AGAIN = 'real "$@" >/dev/null; real "$@"'
FAILS = 'echo "$0: error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
SQUEUE_WITH_ITS_OWN_FORMAT = "real --me -o '%.12i %.10P %.20j %.8u %.2t %.10M %.6D %R'"
SQUEUE_WITH_A_BANNER = r"""
printf '*** maintenance on Monday ***\n\nCLUSTER: here\n'
real "$@"
echo 'squeue: 12 jobs in your project'
"""


def squeue_from_a_cache(answer: Path) -> str:
    """A squeue that always prints the same answer, which `answer` has."""
    return f"cat {answer}"


def wrappers(folder: Path, **texts: str) -> dict[str, str]:
    """Write wrapper scripts into a new folder; returns the variables with which a process finds them first.

    Args:
        folder: the folder.
        texts: shell by the name of the command; `real` calls Slurm's own.
    """
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(f'#!/bin/bash\nreal() {{ {shutil.which(name)} "$@"; }}\n{text}\n')
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
