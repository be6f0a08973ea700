"""What embedkit imports is what its package says that it needs."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from tests.support.slurm.cluster import ROOT

OF_ANALYSIS = {"analysis", "view_server"}
"""Packages that need the extra `analysis`. Commands import the latter only after they looked for it."""
OF_ENGINES = {"fused"}
"""Packages that the engine imports once it runs on a GPU, and what they need: vLLM and what that requires."""
WITH_VLLM = {"cutlass", "quack", "torch", "triton", "vllm"}
OWN = {"embedkit", "jobs", "slurm_templates"}


def test_modules_import_at_their_top_only_what_is_installed() -> None:
    """Extras are imported where they are used, or in the packages that are for one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = names(project["dependencies"])
    of_analysis = needed | names(project["optional-dependencies"]["analysis"])
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for package in ("embedkit", "jobs")
        for path in (ROOT / package).rglob("*.py")
        for name in imported_at_top(path)
        if name not in (of_analysis if OF_ANALYSIS & set(path.parts) else needed) | OWN | sys.stdlib_module_names
        and not (name in WITH_VLLM and OF_ENGINES & set(path.parts))
    }
    assert missing == set()


def names(requirements: list[str]) -> set[str]:
    """The modules of requirements, by the names under which they are imported."""
    modules = {"scikit-learn": "sklearn", "faiss-cpu": "faiss", "umap-learn": "umap"}
    found = [re.split(r"[<>=\[ ]", requirement)[0] for requirement in requirements]
    return {modules.get(name, name) for name in found}


def imported_at_top(path: Path) -> set[str]:
    """The packages that a module imports when it is imported itself."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found
