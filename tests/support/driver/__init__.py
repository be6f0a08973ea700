"""A stand-in for NVIDIA's driver on machines without a GPU, compiled from libcuda.c."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("libcuda.c")


def stand_in_driver(folder: Path, *gpus: str) -> dict[str, str]:
    """The environment of a node with these GPUs. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler for the stand-in of the driver")
    library = folder / "libcuda.so.1"
    if not library.exists():
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True, timeout=60)
    return {"LD_LIBRARY_PATH": str(folder), "EMBEDKIT_TEST_GPUS": ";".join(gpus)}
