"""Import libraries of `embedkit[analysis]` only where they are needed, with a clear error if one is not installed."""

import importlib
from typing import Any

from embedkit.errors import UsageError


def optional_import(module: str) -> Any:
    """Import a module by name.

    Raises:
        UsageError: it cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} cannot be imported here ({error}); install embedkit[analysis]") from error
