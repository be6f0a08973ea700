"""The settings of the test cluster: Debian's Slurm, every daemon on this machine, pretend GPUs."""

import getpass
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "embedkit"
PARTITIONS = """\
PartitionName=gpu Nodes=n[1-4] Default=YES PreemptMode=OFF
PartitionName=cpu Nodes=n[1-4] PreemptMode=OFF
# For tests that lose nodes.
PartitionName=fragile Nodes=n[5-6] PreemptMode=OFF
# Jobs of urgent preempt those of scavenge.
PartitionName=scavenge Nodes=n[7-8] PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes=n[7-8] PriorityTier=10 PreemptMode=OFF
# For mistakes in profiles; no job runs there.
PartitionName=whole Nodes=n[1-4] OverSubscribe=EXCLUSIVE PreemptMode=OFF
PartitionName=short Nodes=n[1-4] MaxTime=10 DefaultTime=5 MaxMemPerNode=2000 AllowAccounts=small PreemptMode=OFF
PartitionName=closed Nodes=n[1-4] State=DOWN PreemptMode=OFF
"""


@dataclass(frozen=True)
class Hardware:
    """What each node has: CPUs, MB of memory, and the device files of its GPUs."""

    cpus: int = 4
    memory: int = 8000
    gpus: tuple[str, ...] = ("/dev/null", "/dev/null")


PRETEND = Hardware()


def write_settings(
    folder: Path, nodes: Sequence[str], ports: Sequence[int], accounting: bool, hardware: Hardware = PRETEND
) -> None:
    """Write slurm.conf, gres.conf and, with accounting, slurmdbd.conf into the folder.

    ports: one per node, then those of slurmctld and slurmdbd.
    """
    controller, database = ports[len(nodes) :]
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    text = f"""\
ClusterName={CLUSTER}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# The delay before a requeued job runs again is one second more than cred_expire.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdLogFile={folder}/log/steps-%n.log
MailProg={folder}/mail.sh
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
# Nodes may claim more CPUs and memory than this machine has.
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=10
KillWait=2
MinJobAge=300
JobRequeue=1
MaxArraySize=1001
GresTypes=gpu
"""
    for node, port in zip(nodes, ports, strict=False):
        text += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
        text += f"CPUs={hardware.cpus} RealMemory={hardware.memory} Gres=gpu:{len(hardware.gpus)} State=UNKNOWN\n"
    text += PARTITIONS if accounting else f"PartitionName=gpu Nodes={','.join(nodes)} Default=YES\n"
    if accounting:
        text += f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database}
AccountingStoragePass={folder}/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits
"""
        write_database_settings(folder, host, user, database)
    (folder / "slurm.conf").write_text(text)
    # Mails are lines of a file: job, state and address.
    (folder / "mail.sh").write_text(f'#!/bin/sh\necho "$*" >> {folder}/mails\n')
    (folder / "mail.sh").chmod(0o755)
    # Slurm requires files for a count of GPUs, and they must be devices.
    (folder / "gpu").mkdir()
    for i, device in enumerate(hardware.gpus):
        (folder / "gpu" / f"nvidia{i}").symlink_to(device)
    files = f"{folder}/gpu/nvidia[0-{len(hardware.gpus) - 1}]"
    (folder / "gres.conf").write_text(f"NodeName={','.join(nodes)} Name=gpu File={files} Flags=nvidia_gpu_env\n")
    # cgroup/v2, which slurmd chooses where it can, wants D-Bus.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")


def write_database_settings(folder: Path, host: str, user: str, port: int) -> None:
    path = folder / "slurmdbd.conf"
    path.touch(mode=0o600)  # slurmdbd insists
    path.write_text(f"""\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
# localhost means MariaDB's unix socket, which MYSQL_UNIX_PORT names.
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm
""")
