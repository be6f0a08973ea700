"""The state of a run for the person who watches it: collect observations, classify tasks, show an overview."""

from jobs.monitor.classify import BLOCKED
from jobs.monitor.collect import StatusCollector
from jobs.monitor.logs import follow, newest_attempt, one_line, says_out_of_memory, selected
from jobs.monitor.mixed_gpus import mixed_gpus_note
from jobs.monitor.prediction import Scale, measure, scale, scale_of_curve, seconds_until_done
from jobs.monitor.schema import Overview
from jobs.monitor.screen import print_overview

__all__ = [
    "BLOCKED",
    "Overview",
    "Scale",
    "StatusCollector",
    "follow",
    "measure",
    "mixed_gpus_note",
    "newest_attempt",
    "one_line",
    "print_overview",
    "says_out_of_memory",
    "scale",
    "scale_of_curve",
    "seconds_until_done",
    "selected",
]
