"""The model of the GPU that an engine in this process would use, found without starting CUDA in this process.

`python -I -S embedkit/engines/gpu_name.py` asks the driver and prints the name. As a file it imports nothing of
embedkit, so it answers in a fraction of a second.
"""

import ctypes
import os
import subprocess
import sys

SECONDS = 60.0
"""Limit for the driver's answer. A driver without persistence mode needs some seconds when no process uses the GPU."""


def gpu_name(visible: str | None = None) -> str:
    """The name of the first visible GPU, as torch.cuda.get_device_name() gives it.

    It is "" if there is no driver, no visible GPU, or no answer. CUDA_VISIBLE_DEVICES decides which GPU is the first;
    `visible` is a different value for it.
    """
    command = [sys.executable, "-I", "-S", __file__]
    environment = os.environ if visible is None else os.environ | {"CUDA_VISIBLE_DEVICES": visible}
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL, env=environment)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def _ask_driver() -> str | None:
    """The name of GPU 0, from CUDA's driver; None if it does not give one. torch takes the name from the same call."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, ctypes.c_int(len(name)), device)
    )
    return None if failed else name.value.decode(errors="replace")


if __name__ == "__main__":
    found = _ask_driver()
    if found is None:
        sys.exit(1)
    print(found)
