"""Versions of the packages that decide files and numbers."""

from importlib.metadata import PackageNotFoundError, version

import embedkit

PACKAGES = ("numpy", "polars", "pyarrow", "tokenizers", "fastokens")


def versions() -> dict[str, str]:
    """Version by package, "" for one that is not installed."""
    found = {"embedkit": embedkit.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found
