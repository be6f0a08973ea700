"""Submit a run to Slurm: plan its jobs, check limits and profile, call sbatch, rerun what is missing, cancel."""

from jobs.submit.cancel import cancel_run
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.changed_profile import ProfileCheck
from jobs.submit.check_limits import check_new_run, new_run_chain
from jobs.submit.script import make_script
from jobs.submit.state import default_allow_mixed, default_analyze, default_preflight, refuse_if_active
from jobs.submit.submit_missing import SubmissionResult, SubmitOptions, last_submission, submit_missing

__all__ = [
    "ChainJob",
    "ProfileCheck",
    "SubmissionResult",
    "SubmitOptions",
    "cancel_run",
    "check_new_run",
    "default_allow_mixed",
    "default_analyze",
    "default_preflight",
    "last_submission",
    "make_script",
    "new_run_chain",
    "refuse_if_active",
    "submit_missing",
    "whole_chain",
]
