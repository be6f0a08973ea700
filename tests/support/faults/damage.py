"""Damage: a byte flipped, a file cut, removed or swapped with another of its kind, at a random border of a run.

verify must name the file. merge alone must not write a wrong result. A resume must repair it, or refuse, name it and
change nothing. In documents with timings, the damaged byte may differ by a few places from one world to another; the
report has the byte.
"""

import hashlib
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from embedkit.check.verify import verify
from embedkit.documents.codec import file_problem, read
from embedkit.documents.schema import Success
from embedkit.run import RunFolder
from tests.support.faults.case import Case, Ended
from tests.support.faults.world import is_promised

KINDS: dict[str, tuple[float, str]] = {
    "configuration": (3, r"run_config\.json"),
    "plan": (3, r"plan\.json"),
    "data index": (2, r"parts/index\.json"),
    "part manifest": (3, r"parts/part-\d+\.json"),
    "shard manifest": (4, r"embeddings/shards/\d+/manifest\.json"),
    "success": (3, r"embeddings/_SUCCESS\.json"),
    "part": (3, r"extracted_data\.parquet/.*"),
    "dropped rows of a part": (1, r"parts/dropped-\d+\.parquet"),
    "dropped rows": (1, r"dropped_rows\.parquet"),
    "shard": (3, r"embeddings/shards/\d+/[^/]*\.safetensors"),
    "shard under way": (2, r"embeddings/shards/\d+/[^/]*\.partial"),
    "journal": (3, r"embeddings/shards/\d+/[^/]*\.jsonl"),
    "merged file": (3, r"embeddings/(all\.safetensors|metadata\.parquet|by_source/.*)"),
    "log": (0.3, r"logs/.*"),
}
"""Kinds of files, by name, with the weight of each; small documents weigh more than their bytes."""

STATES = {"prepared": 2, "begun": 3, "embedded": 2, "merged": 4}
WAYS = [["run"], ["prepare", "embed", "merge"], ["embed", "prepare", "embed", "merge"], ["embed", "merge", "run"]]
"""Commands after the damage: a resume, at once or after stages that do not check all earlier files."""
LAST = {
    "prepared": r"plan\.json",
    "begun": r"embeddings/shards/\d+/.*",
    "embedded": r"embeddings/shards/\d+/.*",
    "merged": r"embeddings/_SUCCESS\.json",
}
"""Documents that no later file depends on, per state: without one, the run is sound, in an earlier state."""


@dataclass(frozen=True)
class Damage:
    """Damage to a file: how, where (as a share of its length), and the flipped bits or the file it is swapped with."""

    how: str
    name: str
    place: float = 0.0
    bits: int = 0
    other: str = ""


def draw_damage(rng: random.Random, run: RunFolder) -> tuple[str, Damage]:
    """Random damage to one of the run's files, and the kind of that file."""
    names = sorted(path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file())
    by_kind = {kind: [n for n in names if re.fullmatch(pattern, n)] for kind, (_, pattern) in KINDS.items()}
    kinds = [kind for kind, members in by_kind.items() if members]
    kind = rng.choices(kinds, [KINDS[kind][0] for kind in kinds])[0]
    name = rng.choice(by_kind[kind])
    how = rng.choices(["flip", "cut", "remove", "swap"], [70, 10, 10, 10])[0]
    place, bits = rng.random(), rng.randint(1, 255)
    data = (run.path / name).read_bytes()
    others = [n for n in by_kind[kind] if n != name and (run.path / n).read_bytes() != data]
    if (how == "swap" and not others) or not data:
        how = "flip" if data else "remove"
    return kind, Damage(how, name, place, bits, rng.choice(others) if how == "swap" else "")


def apply(run: RunFolder, damage: Damage) -> str:
    """Damage the file. Returns a description."""
    path = run.path / damage.name
    data = path.read_bytes()
    at = int(damage.place * len(data))
    if damage.how == "flip":
        path.write_bytes(data[:at] + bytes([data[at] ^ damage.bits]) + data[at + 1 :])
        around = data[max(at - 20, 0) : at + 20]
        return f"byte {at} of {len(data)}: {data[at]:#04x} became {data[at] ^ damage.bits:#04x}, around it {around!r}"
    if damage.how == "cut":
        path.write_bytes(data[:at])
        return f"{at} of {len(data)} bytes are left"
    if damage.how == "remove":
        path.unlink()
        return "removed"
    other = run.path / damage.other
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return f"swapped with {damage.other}"


def damage_case(case: Case) -> None:
    """Play one case."""
    rng = case.rng
    state = rng.choices(list(STATES), list(STATES.values()))[0]
    way = rng.choices(WAYS, [2, 5, 2, 1])[0]
    run = case.world.copy(state, case.run_path)
    kind, damage = draw_damage(rng, run)
    done = apply(run, damage)
    case.result.stage = state
    case.result.facts = {"kind": kind, "how": damage.how, "file": damage.name, "what": done, "way": way}

    is_named = _check_verify(case, run, damage, state)
    _check_merge(case, run)
    before = _digests(run)
    for i, command in enumerate(way):
        ended = case.do(command)
        if command == "merge":
            _check_merge_end(case, run, ended)
        # embed typed before the resume may be refused, and merge after it; then only the resume at the end counts.
        if ended.code and not (way[0] == "embed" and i < len(way) - (1 if way[-1] == "run" else 3)):
            _check_refusal(case, ended, damage, before if i == 0 else None, _digests(run))
            return
    case.wait_for_orphans()
    case.check_end(run, removed="" if is_promised(damage.name) else damage.name)
    case.check_logs(run)
    case.result.outcome = "repaired" if is_named else "harmless"


def _check_verify(case: Case, run: RunFolder, damage: Damage, state: str) -> bool:
    """Check that verify names the file. Returns whether it did."""
    report = verify(run)
    reported = " ".join(f"{problem.file} {problem.what}" for problem in report.problems)
    is_named = any(name and name in reported for name in (damage.name, damage.other))
    case.result.facts["verify"] = [f"{problem.file}: {problem.what}" for problem in report.problems]
    if is_named or not is_promised(damage.name):
        return is_named
    if damage.how == "remove" and re.fullmatch(LAST[state], damage.name) and report.ok:
        return False
    case.fail(f"verify does not name {damage.name}: {reported or 'all is well'}")
    return False


def _check_merge(case: Case, run: RunFolder) -> None:
    """Check that merge on a copy writes a correct _SUCCESS.json or none."""
    copy = RunFolder(case.folder / "merged-alone")
    shutil.copytree(run.path, copy.path)
    _check_merge_end(case, copy, case.do("merge", copy.path))
    shutil.rmtree(copy.path)


def _check_merge_end(case: Case, run: RunFolder, ended: Ended) -> None:
    if ended.code == 0:
        merged = ("embeddings/all", "embeddings/metadata", "embeddings/by_source", "_SUCCESS")
        wrong = [what for what in case.world.difference(run) if what.startswith(merged)]
        for what in wrong:
            case.fail(f"merge alone ended well, but {what}")
    elif run.success.exists() and is_readable(run):
        case.result.facts["merge"] = ended.stderr.strip()[-300:]


def is_readable(run: RunFolder) -> bool:
    """Whether all files that _SUCCESS.json names are as recorded."""
    try:
        success = read(run.success, Success)
    except Exception:
        return False
    return all(file_problem(run.embeddings / file.name, file) is None for file in success.files)


def _check_refusal(
    case: Case, ended: Ended, damage: Damage, before: dict[str, str] | None, after: dict[str, str]
) -> None:
    """Check that a refusal names the file and changed nothing."""
    case.result.facts["refusal"] = ended.stderr.strip()[-500:]
    case.result.outcome = "refused and named"
    if not any(name and name in ended.stderr for name in (damage.name, damage.other)):
        case.fail(f"refused, but {damage.name} is not named: {ended.stderr.strip()[-1000:]}")
    if before is not None and before != after:
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        case.fail(f"refused, but changed: {', '.join(changed)}")


def _digests(run: RunFolder) -> dict[str, str]:
    """The sha256 of each file for which verify promises to find damage."""
    paths: list[Path] = [path for path in run.path.rglob("*") if path.is_file()]
    names = {path.relative_to(run.path).as_posix(): path for path in paths}
    return {n: hashlib.sha256(path.read_bytes()).hexdigest() for n, path in names.items() if is_promised(n)}
