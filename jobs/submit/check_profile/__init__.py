"""`embedkit profile check`: compare what a profile requests with what the cluster has, one finding per line."""

from jobs.submit.check_profile.check import check_profile, check_stage
from jobs.submit.check_profile.engine import check_engine, refuse_engine, stage_device
from jobs.submit.check_profile.finding import Finding, ProfileReport, StageFinding

__all__ = [
    "Finding",
    "ProfileReport",
    "StageFinding",
    "check_engine",
    "check_profile",
    "check_stage",
    "refuse_engine",
    "stage_device",
]
