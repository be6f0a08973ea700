"""verify: the checks in order. Each adds its problems, and the next goes on."""

import contextlib
import secrets
from functools import partial

from embedkit.check.verify.copies import check_copies
from embedkit.check.verify.findings import Findings, Report
from embedkit.check.verify.merged import check_merged
from embedkit.check.verify.parts import PreparedFiles
from embedkit.check.verify.plan import check_other_documents
from embedkit.check.verify.reembed import reembed_rows
from embedkit.check.verify.shards import (
    check_agreement,
    check_manifest,
    check_merged_norms,
    check_rejected,
    check_shard,
    finished_shards,
    request_shard,
)
from embedkit.documents import (
    DataIndex,
    NewerFormat,
    Plan,
    ReadBack,
    Request,
    RunConfig,
    ShardManifest,
    Success,
    digest,
    read,
)
from embedkit.errors import EmbedkitError
from embedkit.merge import Comparison, compare_merged
from embedkit.prepare import read_plan
from embedkit.run import RunFolder


def verify(run: RunFolder, reembed: int = 0, seed: int | None = None) -> Report:
    """Check a run.

    Args:
        run: the run; what it does not have yet is not a problem.
        reembed: rows of each finished shard to embed again and compare.
        seed: chooses those rows; None for different ones each time. The report has the seed that was used.
    """
    with ReadBack() as read_back:
        verifier = _Verifier(run, secrets.randbits(32) if seed is None else seed, read_back)
        try:
            verifier.check(reembed)
        except EmbedkitError as error:
            verifier.findings.add(run.path, str(error))
        return verifier.report()


class _Verifier:
    """One verify of a run: what it has read so far, and what it found."""

    def __init__(self, run: RunFolder, seed: int, read_back: ReadBack) -> None:
        self.findings = Findings(run, read_back)
        self._run = run
        self._read_back = read_back
        self._seed = seed
        self._plan: Plan | None = None
        self._manifests: list[ShardManifest] = []
        self._success: Success | None = None
        self._has_merged_chunks = False
        """Whether the merged matrices are compared with the chunks of all shards, instead of the shards' own."""
        self._stage = "prepare"

    def check(self, rows_to_reembed: int) -> None:
        """Do all checks that the run is ready for."""
        run, findings = self._run, self.findings
        config = self._read_config()
        if config is None or not self._check_request(config):
            return
        self._check_order()
        if run.plan.exists():
            self._plan = findings.attempt(run.plan, lambda: read_plan(run, config), fix=run.prepare_command)
        if self._plan is not None:
            self._manifests = finished_shards(run, self._plan, findings)
        if run.success.exists():
            self._success = findings.attempt(run.success, lambda: read(run.success, Success))
        comparison = self._start_comparison(config.request)
        prepared = PreparedFiles(run, config.request, self._plan, comparison, self._read_back, findings)
        for manifest in self._manifests:
            request_shard(run, manifest, not self._has_merged_chunks, self._read_back)
        prepared.check_parts()
        check_other_documents(run, config.request, findings)
        if self._plan is None:
            return
        self._stage = "embed"
        plan, manifests = self._plan, self._manifests
        prepared.check_rows()
        for manifest in manifests:
            path = run.shard_manifest(manifest.shard)
            check = partial(check_shard, run, manifest, self._read_back, findings)
            findings.attempt(path, check, manifest.shard)
            check_manifest(run, plan, manifest, findings)
        findings.attempt(run.parts, partial(check_copies, run, config, plan, manifests, findings))
        check_agreement(run, manifests, self._success, findings)
        check_rejected(run, manifests, findings)
        if len(manifests) == len(plan.shards):
            self._stage = "merge"
        if self._success is not None and comparison is not None:
            self._stage = "done"
            check_all = partial(check_merged, run, plan, manifests, self._success, comparison, findings)
            findings.attempt(run.success, check_all)
        if self._has_merged_chunks:
            check_merged_norms(run, manifests, self._read_back, findings)
        if rows_to_reembed:
            reembed_rows(run, config, plan, manifests, rows_to_reembed, self._seed, findings)

    def _read_config(self) -> RunConfig | None:
        """The configuration; None if it is damaged, which no command can repair."""
        try:
            return read(self._run.config, RunConfig)
        except NewerFormat:
            raise
        except EmbedkitError as error:
            self.findings.add(self._run.config, str(error), fix=self._run.restore_config)
            return None

    def _check_request(self, config: RunConfig) -> bool:
        """Whether the request is the one that the run was prepared for. If not, nothing else can be compared."""
        run = self._run
        prepared_for = set()
        with contextlib.suppress(EmbedkitError):
            prepared_for.add(read(run.data_index, DataIndex).request_sha256)
        with contextlib.suppress(EmbedkitError):
            prepared_for.add(read(run.plan, Plan).request_sha256)
        if len(prepared_for) == 1 and prepared_for != {digest(config.request)}:
            what = f"{run.plan} and {run.data_index} were made for a different request"
            self.findings.add(run.config, what, fix=run.restore_config)
            return False
        return True

    def _check_order(self) -> None:
        """Check that no earlier document is missing: where a later one exists, that is a loss."""
        run = self._run
        has_shards = any(run.embeddings.glob("shards/*/manifest.json"))
        documents = [
            (run.data_index, run.plan.exists() or has_shards or run.success.exists()),
            (run.plan, has_shards or run.success.exists()),
        ]
        for path, is_needed in documents:
            if is_needed and not path.exists():
                self.findings.add(path, "missing, though later stages were done", fix=run.prepare_command)

    def _start_comparison(self, request: Request) -> Comparison | None:
        """Start to read the merged files, and to compare them with the shards; None if there is nothing to compare."""
        if self._plan is None or self._success is None:
            return None
        is_finished = len(self._manifests) == len(self._plan.shards)
        self._has_merged_chunks = is_finished and request.layout == "merged"
        return compare_merged(self._run, request, self._plan, self._manifests, self._success, self._read_back)

    def report(self) -> Report:
        """The result so far."""
        return Report(
            run=str(self._run.path),
            stage=self._stage,
            rows=self._plan.rows_kept if self._plan else 0,
            shards_finished=len(self._manifests),
            shards=len(self._plan.shards) if self._plan else 0,
            bytes_read=self.findings.bytes_read,
            reembedded=self.findings.reembedded,
            reembed_seed=self._seed,
            copied=self.findings.copied,
            problems=tuple(self.findings.problems),
        )
