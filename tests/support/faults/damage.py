"""Damage to one file of a run: a byte flipped, a file cut, extended, zeroed, removed, or swapped with its like."""

import random
import re
from dataclasses import dataclass

from embedkit.run import RunFolder
from tests.support.faults.end_state import is_promised, without_attempt

KINDS: dict[str, tuple[float, str]] = {
    "configuration": (2, r"run_config\.json"),
    "plan": (3, r"plan\.json"),
    "data index": (2, r"parts/index\.json"),
    "part manifest": (3, r"parts/part-\d+\.json"),
    "shard manifest": (4, r"embeddings/shards/\d+/manifest\.json"),
    "success": (3, r"embeddings/_SUCCESS\.json"),
    "rejected": (2, r"embeddings/rejected\.json"),
    "part": (3, r"extracted_data\.parquet/.*"),
    "dropped rows of a part": (1, r"parts/dropped-\d+\.parquet"),
    "dropped rows": (1, r"dropped_rows\.parquet"),
    "shard": (4, r"embeddings/shards/\d+/[^/]*\.safetensors"),
    "shard under way": (4, r"embeddings/shards/\d+/[^/]*\.partial"),
    "journal": (3, r"embeddings/shards/\d+/[^/]*\.jsonl"),
    "merged matrix": (2, r"embeddings/all[^/]*\.safetensors"),
    "metadata": (2, r"embeddings/metadata\.parquet"),
    "source": (2, r"embeddings/by_source/.*"),
    "lock": (0.3, r"(.*/)?[^/.][^/]*\.lease"),
    "temporary": (2, r"(.*/)?\.[^/]*\.tmp"),
    "log": (0.2, r"logs/.*"),
}
"""Kinds of files, by name, with the weight of each; small documents weigh more than their bytes."""
WAYS = {"flip": 64, "cut": 8, "extend": 7, "zero": 7, "remove": 7, "swap": 7}


@dataclass(frozen=True)
class Damage:
    """Damage to a file: how, where (as a share of its length), and the flipped bits or the file it is swapped with."""

    how: str
    kind: str
    name: str
    place: float = 0.0
    bits: int = 0
    other: str = ""

    def is_named(self, text: str) -> bool:
        """Whether a message names the damaged file, under the name that it will have, or the one swapped with it.

        The number of its shard or part will do.
        """
        names = {name for name in (self.name, self.other, final_name(self.name)) if name}
        if ".try-" in self.name:  # the storage was tried with this file
            names.add("its file system")
        if self.name.endswith(".tmp"):  # some files are written in another folder
            names.add(final_name(self.name).rpartition("/")[2])
        for what, pattern in (("shard", r"embeddings/shards/(\d+)/"), ("part", r"[\w.]+/\.?\w+-(\d+)\.")):
            if found := re.match(pattern, self.name):
                names.add(f"{what} {int(found[1])}:")
        return any(name in text for name in names)


def may_stay(damage: Damage) -> list[str]:
    """How a run may differ in the end: a file that nothing reads again is missing, or a damaged lock is left over."""
    name = final_name(damage.name)
    if name.endswith(".lease"):
        return [f"left over: {name}"]
    return [] if is_promised(damage.name) else [f"missing: {without_attempt(damage.name)}"]


def final_name(name: str) -> str:
    """The name that a temporary or unfinished file will have."""
    name = name.removesuffix(".partial")
    folder, _, last = name.rpartition("/")
    found = re.fullmatch(r"\.(.+?)\.[0-9a-f-]+(\.new)?\.tmp", last)
    return name if found is None else f"{folder}/{found[1]}".removeprefix("/")


def draw_damage(rng: random.Random, run: RunFolder, ways: dict[str, int] = WAYS) -> Damage | None:
    """Random damage to one of the run's files; None if there is none."""
    names = sorted(path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file())
    by_kind = {kind: [n for n in names if re.fullmatch(pattern, n)] for kind, (_, pattern) in KINDS.items()}
    kinds = [kind for kind, members in by_kind.items() if members]
    if not kinds:
        return None
    kind = rng.choices(kinds, [KINDS[kind][0] for kind in kinds])[0]
    name = rng.choice(by_kind[kind])
    how = rng.choices(list(ways), list(ways.values()))[0]
    place, bits = rng.random(), rng.randint(1, 255)
    data = (run.path / name).read_bytes()
    others = [n for n in by_kind[kind] if n != name and (run.path / n).read_bytes() != data]
    if (how == "swap" and not others) or not data:
        how = "flip" if data else "extend"
    return Damage(how, kind, name, place, bits, rng.choice(others) if how == "swap" else "")


def apply(run: RunFolder, damage: Damage) -> str:
    """Damage the file, in place: a process that has it open sees the damage. Returns a description."""
    path = run.path / damage.name
    if damage.how == "remove":
        path.unlink()
        return "removed"
    if damage.how == "swap":
        other = run.path / damage.other
        data = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return f"swapped with {damage.other}"
    with path.open("r+b") as file:
        data = file.read()
        at = int(damage.place * len(data))
        if damage.how == "cut":
            file.truncate(at)
            return f"{at} of {len(data)} bytes are left"
        if damage.how == "extend":
            file.write(bytes([damage.bits]) * (1 + at % 50))
            return f"{1 + at % 50} bytes {damage.bits:#04x} more"
        file.seek(at)
        if damage.how == "zero":
            block = data[at : at + 64]
            file.write(bytes(len(block)) if any(block) else b"\1" * len(block))
            return f"bytes {at} to {at + len(block)} of {len(data)} became zero"
        file.write(bytes([data[at] ^ damage.bits]))
        around = data[max(at - 20, 0) : at + 20]
        return f"byte {at} of {len(data)}: {data[at]:#04x} became {data[at] ^ damage.bits:#04x}, around it {around!r}"
