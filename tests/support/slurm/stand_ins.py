"""Commands that answer as Slurm did where it was recorded (tests/data/slurm), for a real process that asks them."""

import getpass
import os
import re
from pathlib import Path

from tests.support.slurm.record import ASSOC_FIELDS, HERE, QOS_FIELDS

FIELDS = {"assoc": ASSOC_FIELDS, "qos": QOS_FIELDS, "user": ("DefaultAccount",)}


def in_queue_format(recorded: str, name: str = "", folder: str = "") -> str:
    """Recorded output of squeue in today's QUEUE_FORMAT, which has more at both ends of a task.

    Args:
        recorded: tasks in the format of the recordings, `%F|%K|%T|%r|%N|%a|%q|%S|%k`.
        name: the name of the job.
        folder: its working folder.
    """
    tasks = re.split(r"^(?=\d+\|)", recorded, flags=re.MULTILINE)
    more = f"|name={name}|folder={folder}|submitted=2026-11-22T22:38:17|user={os.getuid()}|embedkit\n"
    return "".join(f"embedkit|{task.removesuffix(chr(10))}{more}" for task in tasks if task)


def recorded_site(folder: Path, version: str = "22.05", *, queued: str = "", **changed: str) -> dict[str, str]:
    """Write the commands into a folder, and return the variables with which a process finds them.

    Args:
        folder: a new one.
        version: the recorded version of Slurm.
        queued: the tasks in squeue, in the format of the recordings.
        changed: outputs in place of the recorded ones, by the name of their file: `sinfo`, `partitions`, `config`.
    """
    folder.mkdir()
    for name in ("config", "partitions", "sinfo", "test-only", *FIELDS):
        text = changed.get(name)
        text = (HERE / version / f"{name}.txt").read_text() if text is None else text
        # The recordings name every user `user`; the rows are those of whoever asks.
        text = text.replace("|user|", f"|{getpass.getuser()}|") if name == "assoc" else text
        (folder / f"{name}.txt").write_text(text)
    (folder / "squeue.txt").write_text(in_queue_format(queued))
    # sacctmgr of an older version refuses a field that it does not know; so the fields that were not recorded are.
    known = "\n".join(f'  {name}) known=" {" ".join(fields)} " ;;' for name, fields in FIELDS.items())
    scripts = {
        "scontrol": f'case "$2" in config) cat {folder}/config.txt ;; partition) cat {folder}/partitions.txt ;; '
        "hostnames) echo $3 | tr , '\\n' ;; *) exit 1 ;; esac",
        "sinfo": f"cat {folder}/sinfo.txt",
        "squeue": f"cat {folder}/squeue.txt",
        "sbatch": f'case "$*" in *--test-only*) cat {folder}/test-only.txt >&2; exit 0 ;; esac\n'
        'echo "sbatch: error: this cluster was recorded: it runs nothing" >&2; exit 1',
        "sacctmgr": f"""case "$4" in
{known}
esac
for field in $(echo "${{!#}}" | sed 's/^format=//; s/,/ /g'); do
  case "$known" in *" $field "*) ;; *) echo "Unknown field '$field'" >&2; exit 1 ;; esac
done
cat {folder}/$4.txt""",
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
