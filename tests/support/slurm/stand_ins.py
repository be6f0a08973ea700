"""Commands that answer as Slurm did where it was recorded (tests/data/slurm), for a real process that asks them."""

import os
from pathlib import Path

from tests.support.slurm.record import ASSOC_FIELDS, HERE, QOS_FIELDS

FIELDS = {"assoc": ASSOC_FIELDS, "qos": QOS_FIELDS, "user": ("DefaultAccount",)}


def recorded_site(folder: Path, version: str = "22.05", *, queued: str = "", **changed: str) -> dict[str, str]:
    """Write the commands into a folder, and return the variables with which a process finds them.

    Args:
        folder: a new one.
        version: the recorded version of Slurm.
        queued: what squeue prints, in QUEUE_FORMAT.
        changed: outputs in place of the recorded ones, by the name of their file: `sinfo`, `partitions`, `config`.
    """
    folder.mkdir()
    for name in ("config", "partitions", "sinfo", *FIELDS):
        text = changed.get(name)
        (folder / f"{name}.txt").write_text((HERE / version / f"{name}.txt").read_text() if text is None else text)
    (folder / "squeue.txt").write_text(queued)
    # sacctmgr of an older version refuses a field that it does not know; so the fields that were not recorded are.
    known = "\n".join(f'  {name}) known=" {" ".join(fields)} " ;;' for name, fields in FIELDS.items())
    scripts = {
        "scontrol": f'case "$2" in config) cat {folder}/config.txt ;; partition) cat {folder}/partitions.txt ;; '
        "hostnames) echo $3 | tr , '\\n' ;; *) exit 1 ;; esac",
        "sinfo": f"cat {folder}/sinfo.txt",
        "squeue": f"cat {folder}/squeue.txt",
        "sbatch": 'echo "sbatch: error: this cluster was recorded: it runs nothing" >&2; exit 1',
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
