"""Sets up environments: `.venv` for demo and tests, another one for a cluster. Standard library only.

`requirements/install` starts it before any package is installed.
"""
