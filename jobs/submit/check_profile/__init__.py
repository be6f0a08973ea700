"""`embedkit profile check`: compare what a profile requests with what the cluster has, one finding per line."""

from jobs.submit.check_profile.check import ACCEPTED, NOT_SLURMS, check_on_site, check_profile, check_stage
from jobs.submit.check_profile.engine import check_engine, refuse_engine, stage_device, stage_engine
from jobs.submit.check_profile.finding import Finding, ProfileReport, StageFinding
from jobs.submit.check_profile.gpu_models import mixed_gpus, unknown_gpu
from jobs.submit.check_profile.limits import running_limit
from jobs.submit.check_profile.partition import default_time_of
from jobs.submit.check_profile.sbatch_check import run_test_only

__all__ = [
    "ACCEPTED",
    "NOT_SLURMS",
    "Finding",
    "ProfileReport",
    "StageFinding",
    "check_engine",
    "check_on_site",
    "check_profile",
    "check_stage",
    "default_time_of",
    "mixed_gpus",
    "refuse_engine",
    "run_test_only",
    "running_limit",
    "stage_device",
    "stage_engine",
    "unknown_gpu",
]
