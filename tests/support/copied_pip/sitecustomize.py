"""On PYTHONPATH, this makes `python -m venv` copy pip from EMBEDKIT_TEST_PIP, which a real `python -m venv` has filled.

pip's own installation compiles pip and setuptools anew for each environment: 10 s of CPU, and always the same files.
Only the programs bin/pip* are not copied, since they name their environment. Nothing but `python -m venv` changes.
"""

import os
import shutil
import sys
import sysconfig
from types import SimpleNamespace

pip = os.environ.get("EMBEDKIT_TEST_PIP", "")

if pip and sys.orig_argv[1:3] == ["-m", "venv"]:
    import venv

    def copy_pip(_: venv.EnvBuilder, context: SimpleNamespace) -> None:
        packages = sysconfig.get_path("purelib", "venv", {"base": context.env_dir, "platbase": context.env_dir})
        shutil.copytree(pip, packages, dirs_exist_ok=True)

    venv.EnvBuilder._setup_pip = copy_pip  # type: ignore[attr-defined]
