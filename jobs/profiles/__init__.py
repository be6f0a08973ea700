"""Site profiles: the resources that each stage requests from a cluster (`load` reads and validates the TOML file)."""

from jobs.profiles.load import load_profile, parse_profile, with_overrides
from jobs.profiles.sbatch_options import sbatch_parameters, setup_lines
from jobs.profiles.schema import PLACEHOLDER, STAGES, Profile, Resources, Stage
from jobs.profiles.validation import minutes
from jobs.profiles.variables import KEY_OF_VARIABLE, VariablesRead, read_variables

__all__ = [
    "KEY_OF_VARIABLE",
    "PLACEHOLDER",
    "STAGES",
    "Profile",
    "Resources",
    "Stage",
    "VariablesRead",
    "load_profile",
    "minutes",
    "parse_profile",
    "read_variables",
    "sbatch_parameters",
    "setup_lines",
    "with_overrides",
]
