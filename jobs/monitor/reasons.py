"""What a state of Slurm and the reason of a waiting job mean, and what to do about it. Pure functions of text.

The reasons are those of Slurm 20.11 to 26.05. Limits are read by their parts: `AssocGrpGRESMinutes` is a budget,
`QOSMaxGRESPerUser` limits what runs at once, `AssocMaxWallDurationPerJobLimit` is about the job itself.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from jobs.slurm.states import HELD, QUEUED

Kind = Literal["held", "stuck", "wait"]
"""held: a person must release it. stuck: it starts only after somebody changes something. wait: Slurm goes on alone."""
KINDS: tuple[Kind, ...] = get_args(Kind)
PLAIN = ("", "None", "Priority", "Resources", "Dependency", "JobArrayTaskLimit")
"""Reasons of a usual queue, which need no explanation."""


@dataclass(frozen=True)
class Meaning:
    """What a state or reason means, in a few words, and what to do.

    Attributes:
        kind: whether somebody must act.
        sentence: what it means.
        action: what to type, or whom to ask; `{jobs}` stands for the names of the jobs, `{nodes}` for their nodes.
        needs_profile: whether the action includes a change of the profile.
    """

    kind: Kind
    sentence: str
    action: str
    needs_profile: bool = False


def _held(sentence: str, action: str = "to start them: scontrol release {jobs}") -> Meaning:
    return Meaning("held", sentence, action)


def _stuck(sentence: str, action: str, needs_profile: bool = True) -> Meaning:
    return Meaning("stuck", sentence, action, needs_profile)


def _wait(sentence: str, action: str = "wait") -> Meaning:
    return Meaning("wait", sentence, action)


LOOK_AND_RELEASE = "find the cause (scontrol show job), then: scontrol release {jobs}"
REPORT_AND_RELEASE = "report the node (scontrol show job), then: scontrol release {jobs}"
ASK_OWNER = "ask the account's owner (sshare), or name a different one"
ASK_SITE = "ask your site"

OF_STATE = {
    "CONFIGURING": _wait("the node is starting up", "wait; it may take some minutes"),
    "SUSPENDED": _wait("paused by Slurm or an administrator; not hung", "wait; they go on where they were"),
    "STOPPED": _wait("stopped by a signal, and keep their nodes", "to go on: scancel --signal=CONT {jobs}"),
    "COMPLETING": _wait("they have ended, the node cleans up", "wait; after some minutes report {nodes} to your site"),
    "STAGE_OUT": _wait("they have ended, files are being copied out", "wait"),
    "SIGNALING": _wait("Slurm is sending them a signal"),
    "SPECIAL_EXIT": _held("held, with a mark (SPECIAL_EXIT)", LOOK_AND_RELEASE),
    "REQUEUE_HOLD": _held("put back into the queue and held", LOOK_AND_RELEASE),
    "RESV_DEL_HOLD": _held(
        "held, because their reservation was deleted", "name no reservation, or: scontrol release {jobs}"
    ),
}
"""By Slurm's state."""

OF_REASON = {
    "JobHeldUser": _held("held by you (scontrol hold, or hold in the profile)"),
    "JobHeldAdmin": _held("held by an administrator", "ask your site, then: scontrol release {jobs}"),
    "JobHoldMaxRequeue": _held("held, because Slurm requeued them too often", LOOK_AND_RELEASE),
    "job requeued in held state": _held("put back into the queue and held", LOOK_AND_RELEASE),
    "launch failed requeued held": _held(
        "held, because a node could not start them",
        "report the node (scontrol show job), then: scontrol release {jobs}",
    ),
    "JobLaunchFailure": _held(
        "a node could not start them", "report the node (scontrol show job), then: scontrol release {jobs}"
    ),
    "ReservationDeleted": _stuck("their reservation was deleted", "take it out of the profile"),
    "Reservation": _wait("their reservation has not begun, or is full", "wait (scontrol show reservation)"),
    "DependencyNeverSatisfied": _stuck("a job that they wait for failed", "rerun replaces them", needs_profile=False),
    "BadConstraints": _stuck("no node has what the profile requests", "correct constraint, gres or memory"),
    "InvalidAccount": _stuck("the account is not valid any more", "name a different account"),
    "AccountNotAllowed": _stuck("the partition does not take this account", "name a different account or partition"),
    "InvalidQOS": _stuck("the QOS is not valid any more", "name a different qos"),
    "QOSNotAllowed": _stuck("the partition or account does not take this QOS", "name a different qos"),
    "PartitionTimeLimit": _stuck("time is longer than the partition allows", "request less time"),
    "PartitionNodeLimit": _stuck("the partition's limit on nodes does not fit, or its nodes are down", ASK_SITE),
    "PartitionConfig": _stuck("the partition does not fit what the profile requests", "name a different partition"),
    "MaxMemPerLimit": _stuck("mem is more than the partition allows", "request less memory"),
    "PartitionDown": _wait("the partition is closed at the moment", "wait, or ask your site (sinfo)"),
    "PartitionInactive": _wait("the partition starts no jobs at the moment", "wait, or ask your site (sinfo)"),
    "NodeDown": _wait("a node that they need is down", "wait, or ask your site (sinfo -R)"),
    "FrontEndDown": _wait("the cluster's front end is down", ASK_SITE),
    "SystemFailure": _wait("Slurm, a file system or the network failed", ASK_SITE),
    "BeginTime": _wait("requeued jobs wait some minutes, others for the begin time of the profile"),
    "Licenses": _wait("all licenses are in use"),
    "Cleaning": _wait("their earlier start is still being cleaned up"),
    "Prolog": _wait("the cluster prepares their nodes"),
    "PowerNotAvail": _wait("the cluster's power limit is reached"),
    "PowerReserved": _wait("the cluster's power is reserved"),
    "QOSUsageThreshold": _stuck("the usage of the account is too high for this QOS", ASK_OWNER),
    "AssociationTimeLimit": _stuck("the time of the account is used up", ASK_OWNER),
    "QOSTimeLimit": _stuck("the time of the QOS is used up", ASK_OWNER),
    "AssociationJobLimit": _wait("the account runs as many jobs as it may"),
    "AssociationResourceLimit": _wait("the account uses as much as it may at once"),
    "QOSJobLimit": _wait("the QOS runs as many jobs as it may"),
    "QOSResourceLimit": _wait("the QOS uses as much as it may at once"),
    "DeadLine": _stuck("their deadline cannot be kept any more", "request less time, or take the deadline out"),
}
"""By Slurm's reason, for jobs that wait."""
BURST_BUFFER = _wait("the burst buffer prepares their files")
NO_NODE = _wait("nodes that they need are down, drained or reserved", "wait, or ask your site (sinfo -R)")


def explain(state: str, reason: str) -> Meaning | None:
    """What a job's state means, or the reason why it waits; None if nothing need be said, or it is unknown.

    Args:
        state: Slurm's state, as squeue prints it.
        reason: Slurm's reason. squeue may join the reasons of an array's tasks with commas.
    """
    if state in OF_STATE:
        return OF_STATE[state]
    return explain_reason(reason) if state in QUEUED else None


def explain_reason(reason: str) -> Meaning | None:
    """What the reason of a waiting job means; of several reasons that which most needs a person."""
    if "ReqNodeNotAvail" in reason or "Nodes required for job are DOWN" in reason:
        return _nodes_missing(reason)
    found = [meaning for one in reasons_in(reason) if (meaning := _one(one)) is not None]
    return min(found, key=lambda meaning: KINDS.index(meaning.kind), default=None)


def reasons_in(reason: str) -> list[str]:
    """The reasons that squeue joined with commas, `JobHeldUser,None`; "launch failed requeued held" is one."""
    return [one.strip() for one in reason.strip("()").split(",")]


def urgency(state: str, reason: str) -> int:
    """How much a job in the queue needs a person: 0 most, if it is held."""
    meaning = explain(state, reason)
    return len(KINDS) if meaning is None else KINDS.index(meaning.kind)


def is_held(state: str, reason: str) -> bool:
    """Whether a job in the queue waits for a person to release it. A running job may have such a reason, too."""
    meaning = explain(state, reason)
    return state in HELD or (state in QUEUED and meaning is not None and meaning.kind == "held")


def _one(reason: str) -> Meaning | None:
    if reason in PLAIN:
        return None
    if reason in OF_REASON:
        return OF_REASON[reason]
    if reason.startswith("BurstBuffer"):
        return BURST_BUFFER
    if "held" in reason.split():  # Slurm's own sentence about a hold
        return _held("held", LOOK_AND_RELEASE)
    return _limit(reason)


def _nodes_missing(reason: str) -> Meaning:
    """ReqNodeNotAvail, with the nodes or the reservation that it names."""
    if "ReqNodeNotAvail" in reason and "reserved" in reason.lower() and "UnavailableNodes" not in reason:
        return _wait("nodes are reserved, often for maintenance", "wait, or less time: scontrol show reservation")
    nodes = re.search(r"UnavailableNodes:(\S+)", reason)
    if nodes is None:
        return NO_NODE
    return _wait(f"{_short(nodes[1])} cannot be used now", "wait, or ask your site (sinfo -R)")


def _short(nodes: str) -> str:
    return nodes if len(nodes) <= 30 else f"{nodes[:30]}..."


LIMIT = re.compile(r"(?P<whose>Assoc|QOS)?(?P<scope>Grp|Max|Min)(?P<what>[A-Za-z]+)")


def _limit(reason: str) -> Meaning | None:
    """A limit of the account (Assoc) or of a QOS, by the parts of its name; None if it is no limit."""
    found = LIMIT.fullmatch(reason)
    if found is None or (found["whose"] is None and "Per" not in found["what"]):
        return None
    whose = "the QOS" if found["whose"] == "QOS" else "the account"
    what = found["what"]
    if found["scope"] == "Min":
        return _stuck(f"{whose} takes only larger jobs", "request more, or name a different qos")
    if "PerJob" in what or "PerNode" in what or (re.fullmatch(r"\w*Wall\w*", what) and found["scope"] == "Max"):
        return _stuck(f"one task requests more than {whose} allows", "request less per task (gpus, cpus, mem, time)")
    if "RunMinutes" in what:
        return _wait(f"{whose} has as much in running jobs as it may", "wait, or request less time per task")
    if "Minutes" in what or "Wall" in what:
        return _stuck(f"the budget of {whose} is used up; they do not start until it is raised", ASK_OWNER)
    if "Submit" in what:
        return _wait(f"{whose} has as many jobs in the queue as it may")
    return _wait(f"{whose} uses as much at once as it may", "wait; if nothing of it runs, request less per task")
