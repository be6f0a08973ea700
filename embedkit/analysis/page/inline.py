"""Scripts and JSON that a page carries inside itself."""

import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

from embedkit.analysis.page.modules import bundle


def script_of(entry: str) -> str:
    """A module of the page and all that it imports, as one script. entry: its name without `.js`."""
    folder = files("embedkit.analysis.page") / "static" / "script"
    names = (file.name for file in folder.iterdir())
    sources = {
        name.removesuffix(".js"): folder.joinpath(name).read_text(encoding="utf-8")
        for name in names
        if name.endswith(".js")
    }
    return bundle(sources, entry)


def policy_hash(script: str) -> str:
    """The hash that allows a script. Only the scripts whose hashes are listed run, whatever else gets into the page."""
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def json_inside_script(plain: Any) -> str:
    """JSON of plain values for a script element."""
    return inside_script(json.dumps(plain, separators=(",", ":")))


def inside_script(text: str) -> str:
    """JSON that cannot end its script element, whatever strings it contains."""
    return text.replace("<", "\\u003c")
