"""The command `profile check`: compare a site profile with the cluster."""

import logging
import os
import sys

import click

from jobs.cli.clusters import use_cluster_of
from jobs.cli.options import json_option
from jobs.output import print_json, print_lines
from jobs.profiles import load_profile, read_variables
from jobs.submit.check_profile import check_profile

log = logging.getLogger("embedkit")


@click.group()
def profile() -> None:
    """Check site profiles: the resources that jobs request."""


@profile.command()
@click.argument("name_or_path", metavar="NAME|PATH")
@json_option
def check(name_or_path: str, as_json: bool) -> None:
    """Compare a profile with the cluster, stage by stage, and submit nothing.

    Each line is one finding: the requested value, what the cluster allows, and what to change.
    """
    found = read_variables(load_profile(name_or_path), os.environ)
    if found.ignored:
        log.warning("%s", found.ignored)
    use_cluster_of(found.profile)
    report = check_profile(found.profile)
    if as_json:
        print_json(report)
    else:
        print_lines(*(finding.line for finding in report.findings))
        refused = sum(finding.level == "refused" for finding in report.findings)
        print_lines(f"profile {report.profile}: {'nothing is refused' if report.ok else f'{refused} refused'}")
    sys.exit(0 if report.ok else 1)
