"""Import libraries of `embedkit[analysis]` and `embedkit[export]` where they are needed, or say what to install."""

import importlib
from typing import Any

from embedkit.errors import UsageError


def optional_import(module: str, extra: str = "analysis") -> Any:
    """Import a module by name. `extra`: of embedkit, that installs it.

    Raises:
        UsageError: it cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} cannot be imported here ({error}); install embedkit[{extra}]") from error
