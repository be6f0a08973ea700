"""Read GPUs and other resources in Slurm's text: the only parser of GRES and TRES lists.

A GRES list (sinfo, a profile's `gres`) is `gpu:h100:8(S:0-1),lscratch:900`. A TRES list (sacct, sacctmgr) is
`cpu=8,gres/gpu=1,gres/gpu:h100=1,mem=64G`.
"""

import re


def gpus_in_gres(gres: str) -> dict[str, int]:
    """Count the GPUs of a GRES list by type.

    An entry without a type is under ""; one without a number counts as 1: `gpu:h100:8` is {"h100": 8}, `gpu` is
    {"": 1}.
    """
    counts: dict[str, int] = {}
    for name, *rest in _entries(gres):
        if name != "gpu":
            continue
        count = int(rest.pop()) if rest and rest[-1].isdecimal() else 1
        kind = rest[0] if rest else ""
        counts[kind] = counts.get(kind, 0) + count
    return counts


def gres_names(gres: str) -> frozenset[str]:
    """The names of the resources in a GRES list, without types and numbers: {"gpu", "lscratch"}."""
    return frozenset(name for name, *_ in _entries(gres))


def gpus_in_tres(tres: str) -> int:
    """Count the GPUs of a TRES list. Slurm may list the total and each type: then the total counts."""
    amounts = tres_amounts(tres)
    total = amounts.get("gres/gpu")
    return total if total is not None else sum(n for name, n in amounts.items() if name.startswith("gres/gpu:"))


def tres_amounts(tres: str) -> dict[str, int]:
    """Amounts of a TRES list by name, memory in MB. Entries without a number are left out."""
    amounts: dict[str, int] = {}
    for name, number, unit in re.findall(r"([\w/:.-]+)=(\d+(?:\.\d+)?)([KMGTP]?)", tres):
        scale = 1024 ** ("MGTP".index(unit)) if unit in tuple("MGTP") else 1 / 1024 if unit else 1
        amounts[name] = int(float(number) * scale)
    return amounts


def gres_entries(gres: str) -> list[str]:
    """The entries of a GRES list as they are; `gpu:8(S:0,1),lscratch:900` has two."""
    return re.findall(r"(?:[^,(]|\([^)]*\))+", gres)


def _entries(gres: str) -> list[list[str]]:
    """Each entry of a GRES list as name, type and number; `gres/gpu=2` is read as `gpu:2`."""
    # Sockets and indices, as in (S:0,1), have commas of their own.
    bare = re.sub(r"\([^)]*\)", "", gres)
    return [re.split("[:=]", entry.removeprefix("gres/")) for entry in bare.split(",") if entry]
