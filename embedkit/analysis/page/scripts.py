"""The scripts of the pages: one bundle per page, and the hash by which its policy allows it."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from embedkit.analysis.page.modules import bundle


def page_script(entry: str) -> str:
    """The module `entry` and all that it imports, as one script."""
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
