"""Install packages into an environment: with uv where it is available, else with pip."""

import shutil
import subprocess
import sys

from requirements.setup.environment import ROOT, Environment
from requirements.setup.messages import FAILURE, SetUpError, say


class Installer:
    """Installs into one environment. After uv has failed once, everything is done with pip."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._uv = shutil.which("uv")

    def install(self, what: str, *arguments: str) -> None:
        """Install with uv or pip, which take the same arguments. Raises SetUpError if pip fails."""
        say(f"installing {what} into {self.environment.path} with {'uv' if self._uv else 'pip'}")
        if self._uv and self._with_uv(*arguments):
            return
        if not self.with_pip(*arguments):
            raise SetUpError(
                f"pip could not install {what} into {self.environment.path}; its message is above\n"
                "what is there does not count as complete; the same command continues",
                FAILURE,
            )

    def with_pip(self, *arguments: str) -> bool:
        """Install with pip, which knows the site's index from pip.conf. Returns whether that worked."""
        command = [str(self.environment.python), "-m", "pip", "install", "--disable-pip-version-check"]
        # pip's own progress is for a person. In a log it would be a line per package and more.
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        return _runs([*command, *quiet, *arguments])

    def _with_uv(self, *arguments: str) -> bool:
        if _runs([str(self._uv), "pip", "install", "--python", str(self.environment.python), *arguments]):
            return True
        say("note: uv failed (it does not read pip.conf; its message is above); continuing with pip")
        self._uv = None
        return False


def _runs(command: list[str]) -> bool:
    """Run an installer in the root folder. Its stdout goes to stderr, like all messages of set-up."""
    # It keeps set-up's lock open, see create.py.
    result = subprocess.run(command, cwd=ROOT, stdout=sys.stderr.fileno(), check=False, close_fds=False)
    return not result.returncode
