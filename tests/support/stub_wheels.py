"""Wheels of stub packages, made on the fly, since a wheel is a zip file. They stand for gigabytes of real packages."""

import base64
import hashlib
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

BACKEND = '''
import base64, hashlib, os, time, tomllib, zipfile
from pathlib import Path


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """Installs a clone: its folder, then this test's own packages, so that embedkit can run."""
    busy = Path(os.environ.get("STUB_BUSY") or "nowhere")
    if busy.is_dir():
        (busy / "reached").touch()
        while not (busy / "go").exists():
            time.sleep(0.05)
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    info = f"{project['name']}-0.dist-info"
    scripts = "".join(f"{name} = {target}\\n" for name, target in project["scripts"].items())
    files = {
        "stub_clone.pth": "\\n".join([str(Path.cwd()), *PACKAGES]) + "\\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: {project['name']}\\nVersion: 0\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: stub\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/entry_points.txt": f"[console_scripts]\\n{scripts}",
        f"{info}/RECORD": "",
    }
    name = f"{project['name']}-0-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name


def get_requires_for_build_editable(config_settings=None):
    return []
'''


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, str] | None = None) -> str:
    """Write a wheel with some files and return its sha256 in hexadecimal."""
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    contents = {
        **(files or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: stub\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items())
    path = folder / f"{stem}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name_in_wheel, text in {**contents, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(zipfile.ZipInfo(name_in_wheel), text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stub_backend() -> dict[str, str]:
    """The files of a stub of hatchling, which builds the editable installation of a clone."""
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    return {"hatchling/__init__.py": "", "hatchling/build.py": f"PACKAGES = {packages!r}\n{BACKEND}"}


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
