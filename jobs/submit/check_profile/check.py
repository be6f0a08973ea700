"""Check every stage of a profile against the cluster. The checks are pure functions of a Site."""

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from jobs.profiles import KEY_OF_VARIABLE, STAGES, Profile, Resources, Stage
from jobs.slurm import Site, read_site, require_slurm, with_accounts, with_reservations, with_wckeys
from jobs.submit.check_profile import accounts, gpu_models, limits, nodes, partition, whole_nodes
from jobs.submit.check_profile.curve import check_curve
from jobs.submit.check_profile.engine import check_engine, stage_device, stage_engine
from jobs.submit.check_profile.finding import Finding, ProfileReport, StageFinding, note, refused
from jobs.submit.check_profile.sbatch_check import run_test_only

Tables = Mapping[str, Mapping[str, object]]
NOT_SLURMS = ("exclusive", "engine", "curve")
"""Findings that are embedkit's own rules. Slurm would accept such jobs."""
ACCEPTED = "sbatch --test-only accepts the job"


def check_profile(profile: Profile) -> ProfileReport:
    """Check every stage against this cluster; nothing is submitted. Raises EmbedkitError if Slurm does not answer."""
    require_slurm()
    return check_on_site(profile, with_accounts(read_site()), STAGES, test_only=True)


def check_on_site(profile: Profile, site: Site, stages: Collection[Stage], *, test_only: bool = False) -> ProfileReport:
    """Check some stages against a cluster that was read with its accounts.

    Args:
        profile: the profile.
        site: the cluster.
        stages: the stages to check.
        test_only: also let Slurm check each stage by `sbatch --test-only`.
    """
    requested = [profile.stages[stage] for stage in stages]
    if any(resources.wckey for resources in requested):
        site = with_wckeys(site)
    if any(resources.reservation for resources in requested):
        site = with_reservations(site)
    hosts = nodes.hosts_of(*requested)
    tables = _tables(profile)
    report: list[StageFinding] = []
    for stage in stages:
        findings = [*_from_variables(profile, stage), *check_stage(stage, profile.stages[stage], site, hosts)]
        if stage == "preflight":
            embed = profile.stages["embed"]
            findings += gpu_models.check_preflight_model(profile.stages[stage], embed, site, hosts)
        if stage == "embed" and test_only:
            resources = profile.stages[stage]
            findings.append(check_engine(resources, stage_engine(resources), stage_device(resources)))
            findings += check_curve(profile)
        if test_only:
            tested = run_test_only(profile, stage)
            findings = [*_unless_site_chooses(findings, profile.stages[stage], tested), tested]
        report += [_of_stage(stage, finding, tables) for finding in findings]
    has_refused = any(finding.level == "refused" for finding in report)
    return ProfileReport(profile=str(profile.path), ok=not has_refused, findings=tuple(report))


def check_stage(stage: Stage, resources: Resources, site: Site, hosts: nodes.Hosts) -> Iterator[Finding]:
    """Check the resources of one stage.

    A job that requests several partitions starts in the first that can run it. So a problem in one of them is only
    a warning if another one can run it.

    Args:
        stage: the stage.
        resources: what its tasks request.
        site: the cluster.
        hosts: the node names of each nodelist and exclude.
    """
    names = site.partition_names(resources.partition)
    if not names:
        yield refused(
            "partition",
            requested="none",
            actual="the cluster has no default partition",
            key="partition",
            fix='set it: "NAME"',
        )
    by_partition = [list(_check_partition(stage, resources, site, name, hosts)) for name in names]
    can_run = any(all(finding.level != "refused" for finding in findings) for findings in by_partition)
    for findings in by_partition:
        for finding in findings:
            yield replace(finding, level="warning") if can_run and finding.level == "refused" else finding
    yield from accounts.check_account(resources, site)
    yield from accounts.check_qos(resources, site)
    yield from accounts.check_wckey(resources, site)
    yield from accounts.check_reservation(resources, site)
    yield from limits.check_job_limits(resources, site)
    if stage == "embed":
        yield from gpu_models.check_gpu_models(resources, site, hosts)
        yield limits.check_shards(resources, site)
        yield from limits.check_running_shards(resources, site)


def _unless_site_chooses(findings: Iterable[Finding], resources: Resources, tested: Finding) -> Iterator[Finding]:
    """The findings; without a refusal of the default partition if the site chooses another one, and accepts the job.

    Where a profile names no partition, a plugin of the site may choose it, by the constraint or the QOS.
    """
    chooses = resources.partition is None and tested.level == "ok"
    for finding in findings:
        if not chooses or finding.level != "refused" or finding.what in NOT_SLURMS:
            yield finding
        elif finding.what == "partition":
            yield replace(
                finding, level="note", actual=f"{finding.actual}, and the site chooses one: {ACCEPTED}", fix=""
            )
        else:
            yield replace(finding, level="warning", actual=f"{finding.actual}; but {ACCEPTED}")


def _from_variables(profile: Profile, stage: Stage) -> Iterator[Finding]:
    """Note the keys that environment variables fill."""
    for name, value in profile.variables.items():
        key = KEY_OF_VARIABLE[name]
        if key not in _keys_of(stage, _tables(profile)):
            yield note(key, requested=f'"{value}"', actual=f"from {name}")


def _keys_of(stage: Stage, tables: Tables) -> set[str]:
    """The keys that the file sets for a stage."""
    names = ("all", "embed", stage) if stage == "preflight" else ("all", stage)
    return {key for name in names for key in tables.get(name, {})} | ({"time"} if stage == "preflight" else set())


def _check_partition(
    stage: Stage, resources: Resources, site: Site, name: str, hosts: nodes.Hosts
) -> Iterator[Finding]:
    found = site.partitions.get(name)
    if found is None:
        yield partition.missing(resources, site, name)
        return
    yield partition.check_state(resources, found)
    yield from partition.check_access(resources, site, found)
    yield partition.check_time(resources, found)
    in_partition = site.nodes_of(name)
    if not in_partition:
        yield note("nodes", actual=f"sinfo shows no nodes of {name}; only sbatch --test-only checks them")
        return
    yield from nodes.check_nodes(resources, found, site, hosts)
    eligible = nodes.eligible_nodes(resources, in_partition, hosts)
    yield from whole_nodes.check_whole_nodes(stage, resources, found, eligible)
    if stage == "embed" and eligible:
        yield from whole_nodes.check_node_is_filled(resources, found, eligible)


def _of_stage(stage: Stage, finding: Finding, tables: Tables) -> StageFinding:
    fix = finding.fix
    if finding.key and fix:
        fix = f"{_table_of(stage, finding.key, tables)} {finding.key}: {fix}"
    return StageFinding(
        stage=stage,
        level=finding.level,
        what=finding.what,
        requested=finding.requested,
        actual=finding.actual,
        fix=fix,
    )


def _table_of(stage: Stage, key: str, tables: Tables) -> str:
    """The table of the file that sets a key for a stage; the stage's own table if none does."""
    own = [stage, "embed"] if stage == "preflight" and key != "time" else [stage]
    found = next((name for name in (*own, "all") if key in tables.get(name, {})), own[-1])
    return f"[{found}]"


def _tables(profile: Profile) -> Tables:
    """The tables as the file has them."""
    tables: Tables = tomllib.loads(profile.content.decode("utf-8-sig"))
    return tables
