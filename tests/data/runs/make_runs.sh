#!/bin/bash
# Makes the runs of e73790c.tar.xz again: runs of the code at commit e73790c, which later code must still open, resume,
# merge, verify, rerun, report and analyze. README.md says what each is.
#
#   make_runs.sh CHECKOUT FIXTURE OUTPUTS ARCHIVE
#
# CHECKOUT  a worktree of e73790c with its .venv (a link to another checkout's will do)
# FIXTURE   the folder to make: chats, tokenizer, runs, expected.json; must not exist
# OUTPUTS   a folder for what status, verify and report say of each run; must not exist
# ARCHIVE   the .tar.xz to write
#
# The paths of CHECKOUT and FIXTURE end up in the runs, in scripts and logs. One run is of a real Slurm: the test
# cluster of `make slurm-up`, which is installed if this is Debian and you are root, and is stopped at the end.
set -euo pipefail

[ $# = 4 ] || { sed -n '5,10p' "$0" >&2; exit 2; }
[ ! -e "$2" ] && [ ! -e "$3" ] || { echo "$2 or $3 is there already" >&2; exit 2; }
mkdir -p "$2" "$3" "$(dirname "$4")"
checkout=$(cd "$1" && pwd) fixture=$(cd "$2" && pwd) outputs=$(cd "$3" && pwd)
archive=$(cd "$(dirname "$4")" && pwd)/$(basename "$4")
python=$checkout/.venv/bin/python
scratch=$(mktemp -d)
cd "$checkout"

# .venv may be another checkout's, whose code an editable install would run: PYTHONPATH comes before it, in jobs too.
export PYTHONPATH=$checkout
# No bytecode is left in the checkout, and no colour in what is kept.
export PYTHONDONTWRITEBYTECODE=1 NO_COLOR=1 COLUMNS=120
[ "$("$python" -c 'import embedkit; print(embedkit.__file__)')" = "$checkout/embedkit/__init__.py" ] ||
  { echo "that Python does not run $checkout" >&2; exit 1; }
embedkit() { "$python" -m jobs "$@"; }

slurm_down() { "$python" -m tests.slurm down; }
trap 'slurm_down || true; rm -rf "$scratch"' EXIT

# --- The data: real-looking chats of four sources, two of whose names would like the same folder (a/b is unsafe).
# Vectors of different texts do not compress, so there are few different chats, and they come again and again.
"$python" - "$fixture" <<'PYTHON'
import json
import random
import sys
from pathlib import Path

from tests.models import make_tokenizer

folder = Path(sys.argv[1])
chance = random.Random(73790)
THINGS = "bridge river engine lamp garden clock letter harbour market orchard kettle violin window tunnel ladder".split()
WAYS = "slowly twice before noon|with great care|in the rain|without a map|for seven days|by hand|at half price".split("|")
VERBS = "repair paint measure sell cross describe count move wind lower".split()
ASIDES = ["", "", "", "Es ist halb acht. ", "漢字 🙂 ", "Здравствуйте. ", "x² + y² = r², so ", "def add(a, b):\n    return a + b\n"]


def sentence() -> str:
    a, b = chance.sample(THINGS, 2)
    verb, way = chance.choice(VERBS), chance.choice(WAYS)
    return chance.choice([
        f"First {verb} the {a}, then look at the {b} {way}.",
        f"If the {a} costs {chance.randrange(2, 99)} and the {b} {chance.randrange(2, 99)}, you can {verb} both {way}.",
        f"Nobody likes to {verb} a {a} {way}, least of all beside a {b}.",
        f"{chance.choice(ASIDES)}The {a} was there before the {b}.",
    ])


# All texts are made of these, so that they pack well.
SENTENCES = [sentence() for _ in range(40)]


def text(least: int, most: int) -> str:
    return " ".join(chance.choices(SENTENCES, k=chance.randint(least, most)))


def one_chat(kind: int) -> list[dict[str, str]]:
    question = f"How do I {chance.choice(VERBS)} a {chance.choice(THINGS)} {chance.choice(WAYS)}?"
    asked = [{"role": "user", "content": f"{question} {text(0, 2)}"}]
    if kind % 4 == 0:
        asked.insert(0, {"role": "system", "content": "You are a helpful assistant."})
    if kind % 6 == 1:  # several turns
        asked += [{"role": "assistant", "content": text(1, 1)}, {"role": "user", "content": "And then?"}]
    thought = f"<think>{text(1, 2)}</think>\n\n" if kind % 3 == 0 else ""
    return [*asked, {"role": "assistant", "content": thought + text(3, 6)}]


SOURCES = ("a/b", "a_b", "sums & codes", "tales")
chats = {source: [one_chat(kind) for kind in range(28)] for source in SOURCES}
rows = []
for i in range(700):
    source = SOURCES[(i // 29 + i // 200) % 4]  # in blocks, and not the same number of each
    messages = chats[source][i % 28]
    if i % 97 == 13:
        messages = [{"role": "user", "content": f"Is anybody there? {i}"}]  # no_assistant
    elif i % 101 == 27:
        messages = [{"role": "user", "content": " "}, {"role": "assistant", "content": "\n"}]  # empty
    elif i % 89 == 40:
        messages = [*messages[:-1], {"role": "assistant", "content": " ".join(SENTENCES)}]  # too_long
    rows.append({"messages": messages, "dataset_source": source})
(folder / "chats.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

# What the hash engine needs of a model, as the tests' fixture `tokenizer_only` has it.
make_tokenizer(folder / "tokenizer")
PYTHON

request=(--dataset "$fixture/chats.jsonl" --model "$fixture/tokenizer" --engine hash --max-length 512 --full
  --shards 3 --output-dir "$fixture")

# --- finished: two views, merged and analyzed.
embedkit run "${request[@]}" --view combined --view think --run-name finished
embedkit analyze "$fixture/finished" --components 2 --extremes 1 --points 50 --umap 0
# Of the analysis only small files are kept: the page alone would be larger than all the rest. Folders that end up empty
# go, too.
find "$fixture/finished/analysis" -type f -size +19k -print -delete
find "$fixture/finished/analysis" -type d -empty -delete

# --- half: shard 0 is finished, shard 1 was killed (-9) after one durable chunk, shard 2 was not begun.
embedkit prepare "${request[@]}" --run-name half
embedkit embed "$fixture/half" --shard 0
# Step 5 is the fsync of the second chunk's bytes: its line in the journal is not written.
code=0
PYTHONPATH=$checkout/tests/crash:$checkout EMBEDKIT_TEST_KILL_AT=5 embedkit embed "$fixture/half" --shard 1 || code=$?
[ "$code" = 137 ] || { echo "it was to be killed, and exited $code" >&2; exit 1; }

# --- on_slurm: shard 1 failed at its third chunk, was run again, and failed at its first; merge refused both times.
"$python" -m tests.slurm up
source .venv/slurm/env
ended() { # wait until nothing is queued or running
  for _ in $(seq 240); do [ -z "$(squeue -h)" ] && return; sleep 1; done
  squeue >&2
  return 1
}
faulty=$checkout/tests/faulty:$checkout
mkdir "$scratch/first" "$scratch/second"
PYTHONPATH=$faulty \
  EMBEDKIT_TEST_FAULTS="{\"folder\": \"$scratch/first\", \"seconds\": 0, \"shards\": {\"1\": [\"raise\", 1]}}" \
  embedkit submit "${request[@]}" --profile test --num-gpus 2 --run-name on_slurm
ended
PYTHONPATH=$faulty \
  EMBEDKIT_TEST_FAULTS="{\"folder\": \"$scratch/second\", \"seconds\": 0, \"always\": {\"1\": [\"raise\", 1]}}" \
  embedkit rerun "$fixture/on_slurm"
ended
# What Slurm's accounting adds to the report is gone with the cluster, so this one is kept beside the others.
embedkit report on_slurm --output-dir "$fixture" --json > "$outputs/on_slurm.report-with-slurm.json"
embedkit status on_slurm --output-dir "$fixture" --json > "$outputs/on_slurm.status-with-slurm.json" || true
slurm_down
unset SLURM_CONF

# From here on as on a machine without Slurm: commands that find squeue would ask a cluster that is gone, and `run
# --resume` refuses to touch a run that it cannot ask for.
mkdir "$scratch/empty"
no_slurm() { PATH=$scratch/empty "$python" -m jobs "$@"; }

# Report takes the times of what ran without Slurm from those of the files, so the archive keeps them, in whole seconds,
# which are rounded up: nothing ends before it began.
find "$fixture" -depth -exec sh -c \
  'for path; do touch --date="@$(($(stat --format=%Y "$path") + 1))" "$path"; done' sh {} +

# --- What e73790c says of each. Exit code and errors are kept as well: status exits 1 where something is missing.
for run in finished half on_slurm; do
  for command in status verify report; do
    for form in json txt; do
      option=(); [ "$form" = txt ] || option=(--json)
      code=0
      no_slurm "$command" "$run" --output-dir "$fixture" "${option[@]}" \
        > "$outputs/$run.$command.$form" 2> "$scratch/errors" || code=$?
      { echo "exit code $code"; cat "$scratch/errors"; } > "$outputs/$run.$command.$form.exit"
    done
  done
done

# --- expected.json: sha256 of every file whose bytes are promised (tests/conftest.py: snapshot), by run; half and
# on_slurm as they are once e73790c has completed them. That is done in copies.
cp -a "$fixture/half" "$fixture/on_slurm" "$scratch"
for run in half on_slurm; do
  no_slurm run --resume --run-name "$run" --output-dir "$scratch"
  no_slurm verify "$run" --output-dir "$scratch"
done
"$python" - "$fixture" "$scratch" <<'PYTHON'
import hashlib
import json
import sys
from pathlib import Path

from embedkit.runfolder import RunFolder
from tests.conftest import snapshot

fixture, scratch = map(Path, sys.argv[1:])
files = {
    "finished": snapshot(RunFolder(fixture / "finished"), "combined", "think"),
    "half": snapshot(RunFolder(scratch / "half")),
    "on_slurm": snapshot(RunFolder(scratch / "on_slurm")),
}
assert files["half"] == files["on_slurm"]
sums = {run: {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} for run, found in files.items()}
(fixture / "expected.json").write_text(json.dumps(sums, indent=1, sort_keys=True) + "\n")
PYTHON

# --- One archive: sorted, of nobody, so that packing what was unpacked gives the same bytes.
tar --create --directory "$fixture" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner \
  chats.jsonl expected.json finished half on_slurm tokenizer |
  xz -9 --extreme --threads=1 > "$archive"
ls -l "$archive"
