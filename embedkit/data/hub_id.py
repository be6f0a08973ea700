"""Which names mean a repository of the Hub, and which a path on this machine."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from embedkit.data.hub_errors import Kind
from embedkit.data.missing_path import explain_missing
from embedkit.errors import UsageError

SCHEME = "hf://"
"""Before `owner/name`: certainly a repository, whatever files this machine has."""
HOSTS = ("huggingface.co", "hf.co")
"""Hosts whose pages of repositories are understood."""
FOLDERS: dict[Kind, str] = {"dataset": "datasets", "model": "models"}
"""What may stand before owner/name in the Hub's own addresses: hf://datasets/owner/name."""
WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
FILE_SUFFIXES = (
    *(
        ".parquet",
        ".pq",
        ".jsonl",
        ".json",
        ".ndjson",
        ".csv",
        ".tsv",
        ".arrow",
        ".feather",
        ".ipc",
        ".txt",
        ".safetensors",
    ),
    *(".txt", ".safetensors", ".gz", ".zst", ".bz2", ".xz", ".zip", ".tar"),
)
"""A name that ends so is a file, not a repository."""


def hub_id(name: str, kind: Kind) -> str | None:
    """The repository `owner/name` that a value of --dataset or --model means; None if it is a path.

    `hf://owner/name` is always a repository, and so is the address of its page. `owner/name` alone is one unless it is
    a path: what exists, ends like a file, has a `..`, or begins with the name of a folder that is here.

    Raises UsageError if `hf://` is not followed by a repository of this kind, or for any other address.
    """
    if name.startswith(SCHEME):
        return _explicit(name, kind)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) and not Path(name).exists():
        return _of_page(name, kind)
    return name if looks_like_hub_id(name) and not _is_path(name) else None


def looks_like_hub_id(name: str) -> bool:
    """Whether a name has the form `owner/name`."""
    return re.fullmatch(rf"{WORD}/{WORD}", name) is not None and not name.lower().endswith(FILE_SUFFIXES)


def explain_no_path(option: str, name: str | Path, problem: str) -> str:
    """The message for a path that does not exist: what is missing, the nearest name, how to name a repository."""
    hint = f"; for a repository of the Hub type {SCHEME}{name}" if looks_like_hub_id(str(name)) else ""
    return f"{option} {name}: {problem}: {explain_missing(Path(name))}{hint}"


def _is_path(name: str) -> bool:
    owner, _, rest = name.partition("/")
    return ".." in (owner, rest) or Path(name).exists() or Path(owner).is_dir()


def _explicit(name: str, kind: Kind) -> str:
    """The repository after `hf://`."""
    option = f"--{kind}"
    parts = name.removeprefix(SCHEME).strip("/").split("/")
    if len(parts) > 2 and parts[0] in (*FOLDERS.values(), "spaces"):
        if parts[0] != FOLDERS[kind]:
            raise UsageError(f"{option} {name}: {option} takes {SCHEME}{FOLDERS[kind]}/owner/name, not {parts[0]}")
        parts = parts[1:]
    if len(parts) == 2 and "@" in parts[1]:
        raise UsageError(f"{option} {name}: name the commit, tag or branch with {_revision_option(kind)}")
    if len(parts) > 2:
        raise UsageError(f"{option} {name}: a whole repository is read, {SCHEME}owner/name, not one file of it")
    repo = "/".join(parts)
    if not re.fullmatch(rf"{WORD}/{WORD}", repo):
        raise UsageError(f"{option} {name}: after {SCHEME} write owner/name")
    return repo


def _of_page(name: str, kind: Kind) -> str:
    """The repository whose page on the Hub has this address."""
    option = f"--{kind}"
    try:
        scheme, host, path, *_ = urlsplit(name)
    except ValueError:
        scheme, host, path = "", "", ""
    if scheme == "file":
        raise UsageError(f"{option} {name}: not a path; type {unquote(host + path)}")
    if scheme not in ("http", "https") or host.lower().removeprefix("www.") not in HOSTS:
        raise UsageError(f"{option} {name}: nothing is read from there; fetch it, and name the files on this machine")
    parts = path.strip("/").split("/")
    found = parts[0] if parts[0] in ("datasets", "spaces") else FOLDERS["model"]
    if found != FOLDERS[kind]:
        raise UsageError(
            f"{option} {name}: the Hub has {found} there; {option} takes {SCHEME}{FOLDERS[kind]}/owner/name"
        )
    owner_name, rest = (parts[1:3], parts[3:]) if found == "datasets" else (parts[:2], parts[2:])
    repo = "/".join(owner_name)
    if not re.fullmatch(rf"{WORD}/{WORD}", repo):
        raise UsageError(f"{option} {name}: no page of a repository; type {SCHEME}owner/name")
    if rest not in ([], ["tree", "main"]):
        revision = rest[1] if rest[0] in ("tree", "blob", "resolve") and len(rest) > 1 else "main"
        typed = f" {_revision_option(kind)} {unquote(revision)}" if revision != "main" else ""
        raise UsageError(f"{option} {name}: a whole repository is read; type {option} {SCHEME}{repo}{typed}")
    return repo


def _revision_option(kind: Kind) -> str:
    return "--revision" if kind == "dataset" else "--model-revision"
