"""What a case asks for: one command to run."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """A command to run: arguments of embedkit, where its output goes, its control file ("" for none).

    namespace: run it in a PID namespace of its own. environment: added to that of all commands. module: what is
    run in place of embedkit, as by `python -m`.
    """

    arguments: list[str]
    output: str
    control: str = ""
    namespace: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    module: str = "jobs"
