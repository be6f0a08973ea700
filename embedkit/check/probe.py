"""`python -P embedkit/check/probe.py torch,vllm cuda`: report what this node has for an engine. node.py runs it.

It imports packages and queries the GPUs, step by step, and prints its results before each step. So a step that ends the
process is known as well. It runs as a file and imports nothing of embedkit.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Sequence

MARK = "embedkit-probe "


def _probe(packages: Sequence[str], device: str) -> None:
    known: dict[str, object] = {"versions": {}}
    versions: dict[str, str] = {}

    def report(doing: str, **more: object) -> None:
        known.update(more, doing=doing)
        print(MARK + json.dumps(known), flush=True)

    if device == "cuda":
        report("querying the driver", visible=os.environ.get("CUDA_VISIBLE_DEVICES"))
        known.update(_driver())
    for package in packages:
        report(f"importing {package}")
        try:
            module = __import__(package)
            if package == "vllm":
                from vllm import LLM  # noqa: F401  (vllm alone imports next to nothing)
        except BaseException as error:
            report("", error=[package, type(error).__name__, str(error)])
            return
        versions[package] = str(getattr(module, "__version__", ""))
        report("", versions=versions)
        if package == "torch":
            known["torch_cuda"] = module.version.cuda or ""
            if device == "cuda" and known["torch_cuda"]:
                report("starting CUDA")
                known.update(_gpus(module))
    report("")


def _driver() -> dict[str, object]:
    """The driver's version and the newest CUDA it supports (12020 is 12.2); "" and 0 without a driver."""
    number = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except OSError:
        return {"driver": "", "driver_cuda": 0}
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        text = ""
    return {"driver": (text.split() or [""])[0], "driver_cuda": number.value}


def _gpus(torch: object) -> dict[str, object]:
    cuda = torch.cuda  # type: ignore[attr-defined]
    try:
        cuda.init()
        free_total = [cuda.mem_get_info(i) for i in range(cuda.device_count())]
        names = [cuda.get_device_name(i) for i in range(len(free_total))]
    except Exception as error:
        return {"cuda_error": str(error).strip().partition("\n")[0], "gpus": []}
    return {"gpus": [[name, free, total] for name, (free, total) in zip(names, free_total, strict=True)]}


if __name__ == "__main__":
    _probe([package for package in sys.argv[1].split(",") if package], sys.argv[2])
    sys.stdout.flush()
    os._exit(0)  # do not wait for threads and exit handlers of libraries
