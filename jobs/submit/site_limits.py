"""The site's limits for one `submit`: they choose the number of shards of a new run, and refuse too many."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from embedkit.documents import RunConfig
from embedkit.errors import EmbedkitError, UsageError
from jobs.profiles import Profile, Stage
from jobs.slurm import Site, Task, has_slurm, queue, require_slurm
from jobs.submit.accepted_shards import ShardLimit, accepted_shards, limits_problem, other_jobs
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.changed_profile import ProfileCheck
from jobs.submit.check_limits import read_site_limits, submit_problem
from jobs.submit.check_profile import refuse_engine
from jobs.submit.fit_shards import ShardChoice, fit_shards


@dataclass(frozen=True)
class SiteNow:
    """The cluster, and the user's tasks that are queued or running."""

    site: Site
    queued: Sequence[Task]


@dataclass(frozen=True, kw_only=True)
class SiteLimits:
    """Ask the site once, when its limits are first needed.

    Attributes:
        profile: the site's.
        preflight: --preflight or --no-preflight; None if neither was given.
        analyze: --analyze or --no-analyze; None if neither was given.
        profile_check: the check of a profile that is new to the run.
        dry_run: nothing is submitted. Then it is no error if there is no Slurm here, or if nothing fits now.
    """

    profile: Profile
    preflight: bool | None
    analyze: bool | None
    profile_check: ProfileCheck = field(default_factory=ProfileCheck)
    dry_run: bool = False

    def check(self, config: RunConfig) -> None:
        """Raise before a run is created that could not be submitted.

        Raises:
            UsageError: as check_limits, the cluster would refuse the profile, or the engine cannot use what a task of
                embed gets.
            EmbedkitError: there is no Slurm here, or it does not answer.
        """
        refuse_engine(self.profile, config.request.engine, config.request.device)
        now = self._required()
        self.profile_check.require(None, self.profile, self.stages(config), now.site)
        problem = submit_problem(self.profile, self._chain(config, config.request.shards or 1), now.site, now.queued)
        if problem is not None:
            raise UsageError(problem)

    def choose_shards(self, config: RunConfig, wanted: int) -> ShardChoice:
        """Choose the number of shards of a new run.

        Args:
            config: the run's configuration, without a number of shards.
            wanted: the default number.

        Raises:
            UsageError: too few shards fit.
            EmbedkitError: there is no Slurm here, or it does not answer.
        """
        now = self.known if self.dry_run else self._required()
        if now is None:
            return ShardChoice(wanted)
        jobs = self._chain(config, wanted)
        embed, others = self.profile.stages["embed"], other_jobs(jobs)
        idle = accepted_shards(embed, now.site, (), others)
        tightest = accepted_shards(embed, now.site, now.queued, others)
        choice = fit_shards(wanted, config.num_gpus, tightest, idle)
        if choice is None and self.dry_run:  # the plan shows the run as it will be, and warns that it is refused now
            choice = fit_shards(wanted, config.num_gpus, idle, idle) or ShardChoice(wanted)
        if choice is None:
            problem = limits_problem(embed, jobs, now.site, now.queued)
            raise UsageError(f"{problem}; {_next_step(tightest, idle)}")
        return choice

    def stages(self, config: RunConfig) -> list[Stage]:
        """The stages of a run that was not submitted yet."""
        return [job.stage for job in self._chain(config, 1)]

    def most_shards(self, jobs: Sequence[ChainJob]) -> int | None:
        """How many shards fit beside the other ones of these jobs; None if the site did not answer."""
        if self.known is None:
            return None
        embed, now = self.profile.stages["embed"], self.known
        return accepted_shards(embed, now.site, now.queued, other_jobs(jobs)).shards

    @property
    def known(self) -> SiteNow | None:
        """What the site answered; None if it did not."""
        return self._answer if isinstance(self._answer, SiteNow) else None

    @property
    def unknown(self) -> str:
        """Why the site's limits are unknown; "" if they are known."""
        if isinstance(self._answer, SiteNow):
            return ""
        if not has_slurm():
            return "there is no Slurm on this machine, so the site's limits are unknown"
        return f"the site's limits are unknown: {str(self._answer).splitlines()[-1]}"

    def _required(self) -> SiteNow:
        require_slurm()
        if isinstance(self._answer, SiteNow):
            return self._answer
        raise self._answer

    @cached_property
    def _answer(self) -> "SiteNow | EmbedkitError":
        try:
            return SiteNow(read_site_limits(), queue())
        except EmbedkitError as error:
            return error

    def _chain(self, config: RunConfig, shards: int) -> list[ChainJob]:
        preflight = config.request.engine != "hash" if self.preflight is None else self.preflight
        return whole_chain(shards, 1, preflight, self.profile.stages["embed"].per_job, bool(self.analyze))


def _next_step(now: ShardLimit, idle: ShardLimit) -> str:
    """What to do where no number of shards can be chosen; the arguments are those of `fit_shards`."""
    if not now.queued or not idle.shards:
        return "use a different account or QOS"
    return "wait until some of your jobs have ended, or type a number with --shards"
