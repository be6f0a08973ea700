"""verify: read every byte of a run, finished or not, and report what is wrong, by file and shard."""

from embedkit.check.verify.findings import Problem, Report
from embedkit.check.verify.stage import verify

__all__ = ["Problem", "Report", "verify"]
