"""A small run whose vectors are known, and the libraries that may be missing."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.documents import Success, read
from embedkit.documents.matrix_file import matrix_header
from embedkit.run import RunFolder
from tests.support.merged_runs import run_of
from tests.support.reseal import record_merged, reseal


def exact_run(folder: Path, vectors: np.ndarray, sources: list[str] | None = None) -> RunFolder:
    """A merged run with these vectors, float32 (n, D), whose files are as `_SUCCESS.json` records them.

    With sources, it has their files too.
    """
    run = run_of(folder, vectors, sources)
    record_merged(run, run.view_matrix("combined"))
    record_merged(run, run.metadata)
    success = read(run.success, Success)
    if sources is not None:
        rows = pl.read_parquet(run.metadata)
        files = list(success.files)
        kinds = {}
        for number, name in enumerate(sorted(set(sources))):
            at = [i for i, source in enumerate(sources) if source == name]
            kinds[name] = next(iter(success.sources.values())).__class__(folder=f"s{number}", rows=len(at))
            matrix, metadata = run.source_matrix(f"s{number}", "combined"), run.source_metadata(f"s{number}")
            matrix.parent.mkdir(parents=True, exist_ok=True)
            matrix.write_bytes(matrix_header(len(at), vectors.shape[1]) + vectors[at].tobytes())
            rows[at].write_parquet(metadata)
            for path in (matrix, metadata):
                files = [file for file in files if file.name != path.relative_to(run.embeddings).as_posix()]
                files.append(files[0].__class__(name=path.relative_to(run.embeddings).as_posix(), bytes=0, sha256=""))
        reseal(run.success, Success, files=tuple(files), sources=kinds)
        for number in range(len(kinds)):
            record_merged(run, run.source_matrix(f"s{number}", "combined"))
            record_merged(run, run.source_metadata(f"s{number}"))
    return run


def known_vectors(rows: int, dim: int, seed: int = 1) -> np.ndarray:
    """Unit vectors in clusters; the rows 3 and 7 have no text."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((8, dim))[rng.integers(8, size=rows)] + rng.standard_normal((rows, dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[[3, 7]] = 0
    return vectors


VECTORS = known_vectors(150, 20)
SOURCES = [("b", "a", "c")[i % 3] for i in range(len(VECTORS))]


@pytest.fixture(scope="session")
def known_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """150 rows of 20 dimensions and three sources. Exports of it are written elsewhere."""
    return exact_run(tmp_path_factory.mktemp("known"), VECTORS, SOURCES)
