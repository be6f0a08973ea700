"""What the fork server is asked: one command to run."""

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Request:
    """A command to run: arguments of embedkit, where its output goes, its control file ("" for none).

    namespace: run it in a PID namespace of its own. environment: added to the server's. program: a function to call
    with the arguments in place of embedkit, as `module:name`.
    """

    arguments: list[str]
    output: str
    control: str = ""
    namespace: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    program: str = ""

    def line(self) -> bytes:
        """The request as it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"
