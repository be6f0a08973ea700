"""What is loaded only where it is needed, and said plainly if it is not installed."""

import importlib
from typing import Any

from embedkit.errors import UsageError


def optional_import(module: str) -> Any:
    """Import a module. Raises UsageError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} cannot be imported here ({error}); install embedkit[analysis]") from error
