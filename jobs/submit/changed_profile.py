"""The checks of `profile check` before a run is first submitted with the content of a profile.

Sites have rules that no check knows: plugins that choose the partition, flags of a QOS. So where a check refuses a
stage, Slurm is asked with `sbatch --test-only`, and if it accepts the job, the refusal becomes a warning.
"""

import logging
from collections.abc import Collection, Iterable

import msgspec

from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder
from jobs.profiles import Profile, Stage
from jobs.records import Submissions
from jobs.slurm import Site, has_slurm
from jobs.submit.check_limits import read_site_limits
from jobs.submit.check_profile import ACCEPTED, NOT_SLURMS, StageFinding, check_on_site, run_test_only

log = logging.getLogger("embedkit")


class ProfileCheck:
    """Checks each stage of a profile at most once, and not if a run was already submitted with the same content.

    Warnings are logged.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._wanted = wanted
        self._checked: set[tuple[str, Stage]] = set()

    def require(
        self, run: RunFolder | None, profile: Profile, stages: Iterable[Stage], site: Site | None = None
    ) -> Site | None:
        """Check stages that are about to be submitted. Returns the cluster that was read; None if nothing was checked.

        Args:
            run: the run; None if it does not exist yet.
            profile: the profile, with its changes for this submission.
            stages: the stages to be submitted.
            site: the cluster with its accounts, if it was read already.

        Raises:
            UsageError: something is refused.
            EmbedkitError: Slurm does not answer.
        """
        new = self._new_stages(run, profile, stages)
        if not new:
            return None
        site = site or read_site_limits()
        findings = self._findings(profile, site, new)
        if refused := _lines(findings, "refused"):
            raise UsageError(
                f"{profile.path}: this cluster would refuse jobs of this profile or never start them, so nothing is "
                "submitted:\n"
                + "\n".join(f"  {line}" for line in refused)
                + "\ncorrect the profile; if the check is wrong here, add --no-profile-check"
            )
        self._checked |= {(profile.sha256, stage) for stage in new}
        return site

    def warn(
        self,
        run: RunFolder | None,
        profile: Profile,
        stages: Iterable[Stage],
        site: Site | None = None,
        without: Collection[str] = (),
    ) -> None:
        """As `require`, but only log what is refused, or that Slurm does not answer. Does nothing without Slurm.

        `without`: findings that the command itself reports.
        """
        new = self._new_stages(run, profile, stages)
        if not new or not has_slurm():
            return
        try:
            findings = self._findings(profile, site or read_site_limits(), new, without)
        except EmbedkitError as error:
            log.warning("the profile was not checked: %s", error)
            return
        for line in _lines(findings, "refused"):
            log.warning("submit would refuse the profile: %s", line)

    def _new_stages(self, run: RunFolder | None, profile: Profile, stages: Iterable[Stage]) -> list[Stage]:
        """The stages that the run was not submitted with and that were not checked."""
        if not self._wanted:
            return []
        lines = Submissions(run).read() if run is not None else []
        lines = [line for line in lines if line.what == "submitted" and line.variables == profile.variables]
        done = {(line.profile_sha256, line.stage) for line in lines} | self._checked
        return [stage for stage in dict.fromkeys(stages) if (profile.sha256, stage) not in done]

    def _findings(
        self, profile: Profile, site: Site, stages: Collection[Stage], without: Collection[str] = ()
    ) -> tuple[StageFinding, ...]:
        """The findings of these stages; logs the warnings among them."""
        if not site.partitions:
            log.warning("the profile was not checked: scontrol shows no partitions")
            return ()
        found = [one for one in check_on_site(profile, site, stages).findings if one.what not in without]
        findings = _confirmed(profile, found)
        for line in _lines(findings, "warning"):
            log.warning("profile: %s", line)
        return findings


def _confirmed(profile: Profile, findings: Iterable[StageFinding]) -> tuple[StageFinding, ...]:
    """The findings, with a warning in place of each refusal of a stage that Slurm accepts."""
    found = tuple(findings)
    doubted = dict.fromkeys(one.stage for one in found if one.level == "refused" and one.what not in NOT_SLURMS)
    accepted = {stage for stage in doubted if run_test_only(profile, stage).level == "ok"}
    return tuple(
        msgspec.structs.replace(one, level="warning", actual=f"{one.actual}; but {ACCEPTED}")
        if one.level == "refused" and one.stage in accepted and one.what not in NOT_SLURMS
        else one
        for one in found
    )


def _lines(findings: Iterable[StageFinding], level: str) -> list[str]:
    """The findings of a level, one line for those that are the same in several stages."""
    stages: dict[str, list[str]] = {}
    for finding in findings:
        if finding.level == level:
            requested = f" {finding.requested}" if finding.requested else ""
            fix = f"; {finding.fix}" if finding.fix else ""
            stages.setdefault(f"{finding.what}{requested}: {finding.actual}{fix}", []).append(finding.stage)
    return [f"{', '.join(names)}: {text}" for text, names in stages.items()]
