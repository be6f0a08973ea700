"""The parts of an analysis that look for rows and groups worth reading, on a run as large as the first user's.

The run has planted groups (benchmarks/planted_groups.py). Each part is a process of its own. On a tenth of the rows, a
part is measured beside a rival that does the same with a library alone. Results that a later part needs are written
beside the run, which is part of the measured time.

    python -m benchmarks findings
    python -m benchmarks.bench_findings 20000      fewer rows, printed and not kept
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_analysis import ROWS, SOURCES
from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import TEXT_BYTES, Shape, fabricate
from benchmarks.measure import PYTHON, Figure, Took, cold, timed
from benchmarks.rounds import in_turns, of_rounds, quotients
from embedkit.analysis.components.pca import pca
from embedkit.analysis.findings import Evidence, find_findings
from embedkit.analysis.groups import find_groups, name_groups
from embedkit.analysis.losses import count_unknown_tokens, find_losses, lengths_by_source
from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.similarity.all_neighbors import RowNeighbors, neighbors_of_all
from embedkit.analysis.space import describe_space
from embedkit.analysis.texts import TextFacts, text_facts
from embedkit.run import RunFolder

GROUPS = 60
"""Planted groups, each of eight subgroups. 445 of these 480 are each the home of one source."""
K = 10
CHECKED = 1_000
"""Rows whose nearest rows are computed exactly, to measure the rival's recall."""
PROBED = 20_000
"""Rows of the probe of sources, in describe_space and in its rival."""
HDBSCAN_ROWS = 50_000
"""Rows on which groups are fitted, in find_groups and in its rival."""

Part = Callable[[Merged, Path], dict[str, Any]]
"""Does its work on a run, with a folder for what later parts need, and returns facts about the result."""


def bench(most: int = ROWS) -> Iterator[Figure]:
    """Measure each part on the whole run, then each beside its rival on a tenth."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = demo_texts()[:TEXT_BYTES]
    run = _merged(most, texts)
    for name in PARTS:
        took = _measured(name, run)
        yield Figure(work=f"{most:,} rows: {name}", value=took.wall, unit="s", measured=took.cell, rival="")
    shutil.rmtree(run.path)
    run = _merged(most // 10, texts)
    for rival, (part, what) in RIVALS.items():  # a part needs only what earlier ones of these found
        ours, theirs = in_turns(partial(_measured, part, run), partial(_measured, rival, run))
        yield of_rounds(
            quotients(theirs.walls, ours.walls),
            work=f"{part}, {most // 10:,} rows, beside {rival}",
            measured=f"{ours.cell}{_facts(ours.json)}",
            rival=f"{what}: {theirs.cell}{_facts(theirs.json)}",
        )
    shutil.rmtree(run.path)


def _merged(rows: int, texts: str) -> RunFolder:
    shape = Shape(rows=rows, sources=SOURCES, text_bytes=100, shards=64, groups=GROUPS)
    run = fabricate(FOLDER / "findings", shape, texts)
    timed([PYTHON, "-m", "jobs", "merge", run.path])
    shutil.rmtree(run.embeddings / "shards")
    (run.path / "parts-of-benchmark").mkdir()
    return run


def _measured(name: str, run: RunFolder) -> Took:
    cold(run.path)
    return timed([PYTHON, "-m", "benchmarks.bench_findings", name, run.path])


def _facts(facts: dict[str, Any]) -> str:
    shown = {name: f"{value:.3f}" if isinstance(value, float) else f"{value:,}" for name, value in facts.items()}
    return "".join(f", {name} {value}" for name, value in shown.items())


# The parts, in the order in which they need each other.


def _neighbors(merged: Merged, folder: Path) -> dict[str, Any]:
    found = neighbors_of_all(merged)
    arrays = {name: getattr(found, name) for name in ("positions", "neighbors", "cosines")}
    np.savez(folder / "neighbors.npz", **arrays)
    return {"recall": 1.0 if found.recall is None else found.recall}


def _groups(merged: Merged, folder: Path) -> dict[str, Any]:
    found = find_groups(merged)
    name_groups(merged, found)
    np.savez(folder / "groups.npz", positions=found.positions, fine=found.fine)
    return {"agreement": _agreement(merged, found.positions, found.fine)}


def _text_facts(merged: Merged, folder: Path) -> dict[str, Any]:
    np.savez(folder / "facts.npz", **vars(text_facts(merged)))
    return {}


def _losses(merged: Merged, folder: Path) -> dict[str, Any]:
    facts = _read_facts(folder)
    find_losses(merged).summary()
    lengths_by_source(merged, facts.text_bytes)
    count_unknown_tokens(merged)  # only why they are not counted: a fabricated run has no model
    return {}


def _lengths(merged: Merged, folder: Path) -> dict[str, Any]:
    lengths_by_source(merged)
    return {}


def _space(merged: Merged, folder: Path) -> dict[str, Any]:
    found = describe_space(merged, pca(merged, 10), _read_neighbors(folder))
    found.doubted.write_parquet(folder / "doubted.parquet")
    return {"doubted": found.doubted.height}


def _findings(merged: Merged, folder: Path) -> dict[str, Any]:
    import polars as pl

    evidence = Evidence(
        facts=_read_facts(folder),
        neighbors=_read_neighbors(folder),
        dropped=pl.read_parquet(merged.run.dropped),
        doubted=pl.read_parquet(folder / "doubted.parquet"),
    )
    return {"findings": find_findings(merged, evidence).rows.height}


PARTS: dict[str, Part] = {
    "neighbours of all rows": _neighbors,
    "groups with names": _groups,
    "facts of texts": _text_facts,
    "losses": _losses,
    "lengths, reading all texts": _lengths,
    "components and space": _space,
    "findings": _findings,
}


# The rivals.


def _faiss(merged: Merged, folder: Path) -> dict[str, Any]:
    """faiss alone: an IVF index in memory with as many cells and probes as ours."""
    import faiss

    vectors = np.array(merged.vectors(merged.ids))
    cells = int(np.ceil(2 * np.sqrt(len(vectors))))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(merged.dim), merged.dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[np.random.default_rng(0).permutation(len(vectors))[: 40 * cells]])
    index.add(vectors)
    index.nprobe = 8
    found = np.concatenate([index.search(vectors[at : at + 16_384], K + 1)[1] for at in range(0, len(vectors), 16_384)])
    checked = np.random.default_rng(1).permutation(len(vectors))[:CHECKED]
    exact = faiss.knn(vectors[checked], vectors, K + 1, metric=faiss.METRIC_INNER_PRODUCT)[1]
    pairs = zip(checked.tolist(), found[checked], exact, strict=True)
    return {"recall": np.mean([len((set(a) & set(b)) - {row}) / len(set(b) - {row}) for row, a, b in pairs])}


def _bertopic(merged: Merged, folder: Path) -> dict[str, Any]:
    """BERTopic's published steps and defaults: UMAP to 5 dimensions, HDBSCAN, CountVectorizer, c-TF-IDF.

    Grootendorst, BERTopic, 2022, arXiv:2203.05794. Its HDBSCAN is replaced by scikit-learn's. Clusters are fitted on
    HDBSCAN_ROWS rows, and not placed for the others.
    """
    from sklearn.cluster import HDBSCAN
    from umap import UMAP

    chosen = np.sort(np.random.default_rng(0).permutation(merged.rows.height)[:HDBSCAN_ROWS])
    space = UMAP(n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", low_memory=False).fit_transform(
        merged.vectors(merged.ids[chosen])
    )
    labels = HDBSCAN(min_cluster_size=10, copy=True).fit_predict(space)
    class_tfidf(merged.texts(merged.ids[chosen].tolist())["response_text"].to_list(), labels)
    return {"agreement": _agreement(merged, chosen, labels)}


def class_tfidf(texts: list[str], labels: np.ndarray) -> list[list[str]]:
    """Four words of each cluster by BERTopic's c-TF-IDF: tf * log(1 + A / f), with tf scaled to sum 1 per cluster."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    joined = [" ".join(texts[i] for i in np.flatnonzero(labels == label)) for label in np.unique(labels)]
    vectorizer = CountVectorizer()
    counts = vectorizer.fit_transform(joined)
    frequency = np.asarray(counts.sum(axis=0)).ravel()
    scores = normalize(counts, norm="l1").multiply(np.log(1 + counts.sum() / len(joined) / frequency)).tocsr()
    names = vectorizer.get_feature_names_out()
    return [[str(names[at]) for at in np.argsort(-row.toarray().ravel())[:4]] for row in scores]


def _cleanlab(merged: Merged, folder: Path) -> dict[str, Any]:
    """Rows whose source is doubted by cleanlab's documented recipe: cross_val_predict, then self-confidence.

    Northcutt, Jiang, Chuang, "Confident Learning", JAIR 2021. A row is doubted if another source is at least as likely
    for it as that source's mean self-confidence, and likelier than its own.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    chosen = np.sort(np.random.default_rng(0).permutation(merged.rows.height)[:PROBED])
    sources = merged.rows["source"].to_numpy()[chosen]
    _, codes, counts = np.unique(sources, return_inverse=True, return_counts=True)
    kept = counts[codes] >= 5
    vectors, codes = merged.vectors(merged.ids[chosen[kept]]), codes[kept]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=100)
    found = cross_val_predict(model, vectors, codes, cv=folds, method="predict_proba")
    _, codes = np.unique(codes, return_inverse=True)
    own = found[np.arange(len(codes)), codes]
    threshold = np.bincount(codes, own) / np.bincount(codes)
    likely = np.where(found >= threshold, found, 0).argmax(axis=1)
    return {"doubted": int(np.sum((likely != codes) & (found.max(axis=1) > own)))}


RIVALS: dict[str, tuple[str, str]] = {
    "faiss": ("neighbours of all rows", "faiss IndexIVFFlat, as many cells and probes, all vectors in memory"),
    "bertopic": (
        "groups with names",
        f"BERTopic's steps (umap-learn, scikit-learn's HDBSCAN and CountVectorizer) on {HDBSCAN_ROWS:,} rows, without "
        "placing the others",
    ),
    "cleanlab": ("components and space", f"cleanlab's recipe with scikit-learn on {PROBED:,} rows, without the rest"),
}
"""For each rival the part that it does, and what it is."""
RIVAL_WORK: dict[str, Part] = {
    "faiss": _faiss,
    "bertopic": _bertopic,
    "cleanlab": _cleanlab,
}


def _agreement(merged: Merged, positions: np.ndarray, labels: np.ndarray) -> float:
    """Adjusted mutual information of groups with the planted subgroups, 1 if they are the same. -1 is a group, too."""
    from sklearn.metrics import adjusted_mutual_info_score

    planted = Shape(merged.success.rows, SOURCES, text_bytes=100, shards=64, groups=GROUPS).planted
    assert planted is not None
    some = np.random.default_rng(2).permutation(len(positions))[:HDBSCAN_ROWS]
    return float(adjusted_mutual_info_score(planted.subgroup[merged.ids[positions[some]]], labels[some]))


def _read_neighbors(folder: Path) -> RowNeighbors:
    with np.load(folder / "neighbors.npz") as arrays:
        return RowNeighbors(**arrays, method="approximate")


def _read_facts(folder: Path) -> TextFacts:
    with np.load(folder / "facts.npz") as arrays:
        return TextFacts(**arrays)


def main() -> None:
    """Do one part or rival on a run and print facts about its result; or measure all on so many rows, and print."""
    if len(sys.argv) == 2:
        for figure in bench(int(float(sys.argv[1]))):
            print(f"{figure.work}: {figure.value:.3g} {figure.unit}\n    {figure.measured}\n    {figure.rival}")
        return
    name, run = sys.argv[1], RunFolder(Path(sys.argv[2]))
    work = (PARTS | RIVAL_WORK)[name]
    print(json.dumps(work(open_merged(run), run.path / "parts-of-benchmark")))


if __name__ == "__main__":
    main()
