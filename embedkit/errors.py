"""Errors that a person reads: each says what is wrong, where it is, and what to do next."""

from typing import ClassVar


class EmbedkitError(Exception):
    """Something failed or is incomplete. The command line prints the message alone and exits 1.

    `code` names the kind of failure for programs, in the record of an attempt. It is empty where no program asks.
    """

    exit_code = 1
    code: ClassVar[str] = ""


class UsageError(EmbedkitError):
    """The request cannot be carried out as given. The command line exits 2."""

    exit_code = 2


class Interrupted(EmbedkitError):
    """The person pressed Ctrl-C. Nothing is wrong. The exit code is the one that shells use."""

    exit_code = 130


class AttemptReplaced(EmbedkitError):
    """Another attempt at the shard has removed files of this one, which ends: the other has its durable chunks."""


class DiskDiffers(EmbedkitError):
    """The disk gave back other bytes than were written to a file. The file is not kept; a resume makes it again."""


class LockLost(EmbedkitError):
    """The lock of this process is gone, or its file is damaged. What it was about to change is unchanged."""


class CanaryMoved(EmbedkitError):
    """The canary's vectors changed while a shard was embedded: the GPU of this node cannot be trusted."""

    code = "canary-moved"


class EngineDiffers(EmbedkitError):
    """This node's engine is not the one that the run's other shards have: merge would refuse a shard from here."""

    code = "engine-differs"


class GpuDiffers(EngineDiffers):
    """As EngineDiffers, and the cause is this node's GPU. A different node may have the right one."""

    code = "gpu-differs"


class GpuHeld(EmbedkitError):
    """Another process uses the memory of this node's GPU. A different node, or this one later, may be free."""

    code = "gpu-held"


class PreflightFailed(EmbedkitError):
    """A check of the preflight failed: every shard would fail on this node in the same way."""

    code = "preflight-failed"
