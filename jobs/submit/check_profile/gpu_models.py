"""Check that all shards get the same GPU model: merge refuses shards that different models made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from embedkit.prepare import gpu_model
from jobs.gpu_request import GPU_OPTIONS
from jobs.profiles import Resources
from jobs.slurm import Node, Site, listed
from jobs.submit.check_profile.finding import Finding, Level, note, warning
from jobs.submit.check_profile.nodes import Hosts, eligible_nodes, hosts_of

CONSEQUENCE = "merge refuses shards of different GPU models, whose vectors differ, unless --allow-mixed accepts them"
MODEL_NAMES = frozenset(
    [
        *("p40", "p100", "v100", "t4", "a10", "a16", "a30", "a40", "a100", "a5000", "a6000", "l4", "l40", "l40s"),
        *("h100", "h200", "gh200", "b200", "b300", "gb200", "gb300"),
        *("mi100", "mi210", "mi250", "mi250x", "mi300a", "mi300x"),
    ]
)
"""Features that are the name of a GPU model and nothing else."""


@dataclass(frozen=True)
class GpuModels:
    """The names of the nodes by GPU model, on which tasks may run. `untyped`: nodes whose GPUs sinfo does not name."""

    nodes: Mapping[str, frozenset[str]]
    untyped: frozenset[str] = frozenset()

    def __str__(self) -> str:
        counts = [f"{name} ({_nodes(len(self.nodes[name]))})" for name in sorted(self.nodes)]
        return " and ".join(filter(None, [", ".join(counts[:-1]), *counts[-1:]]))


def gpu_models(resources: Resources, site: Site, hosts: Hosts) -> GpuModels:
    """The GPU models of the nodes that a task may get, over all partitions that it requests."""
    models: dict[str, set[str]] = {}
    requested = {kind for kind in resources.gpus_by_type if kind}
    for node in _eligible(resources, site, hosts):
        for kind in requested or node.gpus:
            models.setdefault(kind, set()).add(node.name)
    untyped = frozenset(models.pop("", ()))
    return GpuModels({name: frozenset(nodes) for name, nodes in models.items()}, untyped)


def check_gpu_models(resources: Resources, site: Site, hosts: Hosts) -> Iterator[Finding]:
    """Warn if tasks may get GPUs of different models. GPUs that sinfo does not name are no model."""
    if not resources.gpu_count:
        return
    models = gpu_models(resources, site, hosts)
    names = sorted(models.nodes)
    where = ", ".join(site.partition_names(resources.partition))
    if len(names) > 1:
        key, fix = _pin(resources, models, site, hosts)
        actual = f"{where} has {models}: {CONSEQUENCE}"
        yield warning("gpu models", requested=_requested(resources), actual=actual, key=key, fix=fix)
    elif names and models.untyped:
        unnamed = listed(models.untyped)
        actual = f"{where} has {models}, and sinfo does not name the GPUs of {unnamed}: {CONSEQUENCE}"
        yield note("gpu models", requested=_requested(resources), actual=actual, key="exclude", fix=f'"{unnamed}"')
    elif models.untyped:
        yield from _check_features(resources, _eligible(resources, site, hosts), where)


def mixed_gpus(embed: Resources, site: Site) -> tuple[Level, str] | None:
    """The finding of `check_gpu_models` for a plan: its level, and what it says in one line; None if there is none."""
    finding = next(check_gpu_models(embed, site, hosts_of(embed)), None)
    return None if finding is None else (finding.level, f"{finding.actual}; [embed] {finding.key}: {finding.fix}")


def unknown_gpu(embed: Resources, site: Site | None) -> str:
    """The GPU model without a built-in curve that tasks get; "" if that is not known, or if it has one.

    site: None if the cluster could not be asked.
    """
    named = [kind for kind in embed.gpus_by_type if kind]
    if not named and site is not None:
        named = list(gpu_models(embed, site, hosts_of(embed)).nodes)
    is_unknown = not embed.predicted_gpu and len(named) == 1 and gpu_model(named[0]) is None
    return named[0] if is_unknown else ""


def check_preflight_model(preflight: Resources, embed: Resources, site: Site, hosts: Hosts) -> Iterator[Finding]:
    """Warn if preflight gets a different GPU model than embed: then it does not test what the shards get."""
    if not preflight.gpu_count or not embed.gpu_count:
        return
    tested, used = gpu_models(preflight, site, hosts), gpu_models(embed, site, hosts)
    if not tested.nodes or not used.nodes or tested.nodes.keys() == used.nodes.keys():
        return
    actual = f"preflight may get {tested}, and embed {used}: preflight must test the GPU model that embeds"
    yield warning(
        "gpu models", requested=_requested(preflight), actual=actual, key="partition", fix="the nodes of [embed]"
    )


def _eligible(resources: Resources, site: Site, hosts: Hosts) -> list[Node]:
    """The nodes with GPUs that a task may get, once per partition."""
    return [
        node
        for name in site.partition_names(resources.partition)
        for node in eligible_nodes(resources, site.nodes_of(name), hosts)
        if node.gpus
    ]


def _check_features(resources: Resources, nodes: Sequence[Node], where: str) -> Iterator[Finding]:
    """Note features that are names of GPU models, if each node has exactly one such feature."""
    models: dict[str, set[str]] = {}
    for node in nodes:
        named = [feature for feature in node.features if feature.lower() in MODEL_NAMES]
        if len(named) != 1:
            return
        models.setdefault(named[0], set()).add(node.name)
    if len(models) > 1:
        found = GpuModels({name: frozenset(names) for name, names in models.items()})
        actual = f"the nodes of {where} have the features {found}. If these are GPU models: {CONSEQUENCE}"
        fix = " or ".join(f'"{name}"' for name in sorted(models))
        yield note("gpu models", requested=_requested(resources), actual=actual, key="constraint", fix=fix)


def _pin(resources: Resources, models: GpuModels, site: Site, hosts: Hosts) -> tuple[str, str]:
    """The key of the profile, and its values, with which all tasks get one model."""
    names = sorted(models.nodes)
    count = resources.gpu_count
    option = next((name for name in GPU_OPTIONS if resources.sbatch.get(name) not in (None, False)), None)
    if resources.gpus is None and resources.gres is None and option is not None:
        return "sbatch", " or ".join(f'{{ {option} = "{name}:{count}" }}' for name in names)
    if not resources.gpus_from_node or resources.gpus or resources.gres:
        others = [entry for entry in (resources.gres or "").split(",") if entry and not entry.startswith("gpu")]
        choices = " or ".join(f'"{",".join([f"gpu:{name}:{count}", *others])}"' for name in names)
        return "gres", choices + (", instead of gpus" if resources.gpus else "")
    features = _features(models, _eligible(resources, site, hosts))
    if features:
        return "constraint", " or ".join(f'"{features[name]}"' for name in sorted(features))
    rarest = min(names, key=lambda name: (len(models.nodes[name]), name))
    return "exclude", f'"{",".join(sorted(models.nodes[rarest]))}" leaves out {rarest}'


def _features(models: GpuModels, nodes: Sequence[Node]) -> dict[str, str]:
    """For each model a feature that all of its nodes have and no other node has; the model's name if it is one."""
    found: dict[str, str] = {}
    for model, members in models.nodes.items():
        inside = [node.features for node in nodes if node.name in members]
        outside = frozenset[str]().union(*(node.features for node in nodes if node.name not in members))
        own = frozenset.intersection(*inside) - outside
        if own:
            found[model] = min(own, key=lambda feature: (feature.lower() != model.lower(), feature))
    return found


def _requested(resources: Resources) -> str:
    if resources.gres:
        return f'"{resources.gres}"'
    return f"{resources.gpu_count} GPU{'s' * (resources.gpu_count > 1)}"


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"
