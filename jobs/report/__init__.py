"""The report of a run: what it cost, and how each attempt went."""

from jobs.report.collect import read_inputs
from jobs.report.compute import make_report
from jobs.report.page import write_page
from jobs.report.text import print_run_report

__all__ = [
    "make_report",
    "print_run_report",
    "read_inputs",
    "write_page",
]
