"""The certificates of a run: which engines were found to give the same vectors (`embedkit certify`).

embed, merge and verify accept shards of two engines if a passed certificate has both, in place of equal engine records.
"""

import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from embedkit.documents import Certificate, EngineRecord, Plan, digest, encode, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import durable_mkdir, write_once
from embedkit.terminal import quote


def require_writable(run: RunFolder) -> None:
    """Raise EmbedkitError if this user may not write a certificate: the run may be that of someone else."""
    folder = run.certificates if run.certificates.exists() else run.path
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EmbedkitError(
            f"{folder}: you may not write here, and a certificate lies in the run that it is of. Ask who owns the run "
            f"to type {run.certify_command} here, or to let you write. If the run is merged, "
            f"{run.command('diff', '--now')} compares the same, and writes nothing"
        )


def write_certificate(run: RunFolder, certificate: Certificate) -> Path:
    """Write a certificate under the first free number, and never over another one. Returns its path."""
    durable_mkdir(run.certificates)
    for number in count(1):
        path = run.certificates / f"{number:03d}.json"
        if not path.exists() and write_once(path, encode(certificate)):
            return path
    raise AssertionError("numbers do not end")


def read_certificates(run: RunFolder) -> dict[Path, Certificate]:
    """All certificates of a run, by file. Raises EmbedkitError naming one that is damaged."""
    return {path: read_certificate(run, path) for path in certificate_files(run)}


def certificate_files(run: RunFolder) -> list[Path]:
    """The files of a run's certificates, in order."""
    return sorted(path for path in run.certificates.glob("*.json") if path.stem.isdigit())


def read_certificate(run: RunFolder, path: Path) -> Certificate:
    """One certificate. Raises EmbedkitError naming the file and what to do, if it is damaged."""
    try:
        return read(path, Certificate)
    except EmbedkitError as error:
        raise type(error)(
            f"{error}. What it proved is not known any more: rm {quote(str(path))}, then type {run.certify_command} "
            "where that engine is installed"
        ) from None


class Certified:
    """What the passed certificates of a run's plan say. Certificates of another plan count for nothing."""

    def __init__(self, certificates: Iterable[Certificate], plan_sha256: str) -> None:
        self._passed = [
            certificate
            for certificate in certificates
            if certificate.passed
            and certificate.plan_sha256 == plan_sha256
            and all(compared.passed for compared in certificate.compared)
        ]

    @classmethod
    def of_run(cls, run: RunFolder) -> "Certified":
        """Those of a run. Raises EmbedkitError naming a damaged one."""
        found = read_certificates(run)
        return cls(found.values(), digest(read(run.plan, Plan))) if found else cls((), "")

    def proof(self, one: EngineRecord, other: EngineRecord) -> Certificate | None:
        """The first certificate by which two engines give the same vectors; None if there is none."""
        return next(
            (
                certificate
                for certificate in self._passed
                for compared in certificate.compared
                if {one, other} == {certificate.engine, compared.engine}
            ),
            None,
        )

    def same_as(self, engine: EngineRecord) -> tuple[EngineRecord, ...]:
        """Other engines that give the vectors of this one, without repeats."""
        pairs = [
            (certificate.engine, compared.engine)
            for certificate in self._passed
            for compared in certificate.compared
            if engine in (certificate.engine, compared.engine)
        ]
        return tuple(dict.fromkeys(record for pair in pairs for record in pair if record != engine))
