"""`make same-numbers BASE=COMMIT`: does the working tree still give the numbers of that commit, to the last digit?

Both run the steps of `same_steps.py` on tiny cohorts at fixed seeds, on the processor, one thread a process, with the
same relative paths. Then all that they leave is compared, as `same_outputs.py` says: exit code 0 where all is equal, 1
where a number differs or a step fails, 2 where the call is wrong.

The outputs of a commit are kept in `.same-numbers/SHA/outputs` beside the main checkout and used again as long as the
step and those that it needs stay the same. A commit has packages of its own in its checkout, unless it asks for the
same ones as the working tree.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from same_outputs import Compared, compare_folders
from same_steps import PLACE, Step, draw, steps_of

# What a refactoring has renamed: old word, new word, and what in `conf/` tells that a checkout speaks the new one. To
# add one is to add a line.
#
# "words", and under the name of a verb those of its commands alone, stand in the steps, which are written in old words:
# keys, groups, options. A word is replaced where it stands by itself: `turns` in `augmentation=turns`, not in
# `turn_consistency`; `ceiling=` is the key alone and not an option of that name.
#
# "columns" stand in tables, metrics, settings, and names of tensors, "files" in paths of outputs. These are put into
# new words on both sides, words of commands too, and then compared.
Renamed = tuple[str, str, str]
RENAMED: dict[str, list[Renamed]] = {
    "words": [
        ("starts", "n_init", "train.yaml: n_init:"),
        ("augmentation=mirror", "augmentation=horizontal_flip", "augmentation/horizontal_flip.yaml"),
        (
            "augmentation=turns_and_jitter",
            "augmentation=flip_rotate90_jitter",
            "augmentation/flip_rotate90_jitter.yaml",
        ),
        ("turn_consistency", "rotation_consistency", "regulariser/rotation_consistency.yaml"),
        ("+regulariser=", "regulariser=", "train.yaml: - regulariser:"),
    ],
    "train": [
        ("evaluate=false", "evaluation.split=none", "train.yaml: evaluation:"),
        ("report=false", "evaluation.report=false", "train.yaml: evaluation:"),
    ],
    "evaluate": [("test=false", "split=val", "evaluate.yaml: split:")],
    "compare": [("ceiling=", "upper_bound=", "compare.yaml: upper_bound:")],
    "columns": [("teacher", "pseudo_labels", ""), ("own_reference", "own_background", "")],
    "files": [("starts", "inits", "")],
}

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / ".same-numbers"
REQUIREMENTS = ("pyproject.toml", "constraints.txt")
# What could change a number, or lead out of this machine.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "offline"}


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes:
        name: `base` or `now`.
        root: A checkout, of which `src` and `conf` are used; None where there are recorded outputs alone.
        python: An interpreter with the packages that it needs.
        outputs: A folder a step, and beside it what the step printed and whether it ended well.
        reuse: Whether outputs that are there already stand.
    """

    name: str
    root: Path | None
    python: Path
    outputs: Path
    reuse: bool

    def command(self, text: str, step: str) -> list[str]:
        """A command of a step, in the words and with the folders of this side."""
        spoken = text if self.root is None else spoken_by(self.root, text)
        return shlex.split(PLACE.sub(lambda found: step if found[1] == "here" else found[1], spoken))


@dataclass(frozen=True)
class Ran:
    """What became of a step.

    Attributes:
        seconds: That it took when it ran.
        failed: Why it did; empty where it ended well.
        key: Of its commands and of those before it.
    """

    seconds: float
    failed: str
    key: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, compare and report; the exit code."""
    given = parsed(arguments)
    now = now_side(given)
    base = None if given.record else base_side(given)
    steps = chosen(all_steps(base or now), given.only)
    sides = [side for side in (base, now) if side]
    ran = run_all(sides, steps, given.jobs)
    if not base:
        return int(any(one.failed for one in ran.values()))
    return report({step.name: results(step, base, now, ran) for step in steps}, ran)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", help="the commit whose numbers are right")
    parser.add_argument("--head", help="a commit to judge in place of the working tree")
    parser.add_argument("--only", metavar="PATTERN", help="steps with such a name, and what they need: 'search_*'")
    parser.add_argument("--fresh", action="store_true", help="run the base again, whatever is recorded")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="steps at once")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="interpreter with the packages of today"
    )
    parser.add_argument("--base-python", type=Path, help="interpreter with the packages of the base")
    parser.add_argument("--record", type=Path, metavar="DIR", help="run one side alone and keep its outputs there")
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare with such outputs, in place of a commit")
    given = parser.parse_args(arguments)
    if sum(map(bool, (given.base, given.record, given.against))) != 1:
        parser.error("give the base, a commit, or one of --record and --against")
    return given


# --- the two sides


def base_side(given: argparse.Namespace) -> Side:
    if given.against:
        return Side("base", None, given.python, given.against.resolve(), reuse=True)
    return commit_side("base", given.base, given.base_python, given.python, not given.fresh)


def now_side(given: argparse.Namespace) -> Side:
    if given.head:
        return commit_side("now", given.head, None, given.python, reuse=True)
    outputs = (given.record or HERE / "now" / "outputs").resolve()
    return Side("now", frozen(HERE / "now" / "tree"), given.python.absolute(), outputs, reuse=False)


def frozen(tree: Path) -> Path:
    """A copy of the working tree's code, so that it may be worked on meanwhile."""
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def commit_side(name: str, commit: str, python: Path | None, today: Path, reuse: bool) -> Side:
    sha = git("rev-parse", "--verify", f"{commit}^{{commit}}")
    folder = store() / sha
    checkout = folder / "checkout"
    if not checkout.exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(checkout), sha)
    return Side(name, checkout, (python or python_of(checkout, today)).absolute(), folder / "outputs", reuse)


def store() -> Path:
    """Where commits are kept: once for all worktrees of a repository."""
    return (ROOT / git("rev-parse", "--git-common-dir")).resolve().parent / ".same-numbers"


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        complain(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def complain(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


def python_of(checkout: Path, today: Path) -> Path:
    """The checkout's own interpreter; today's where it asks for the same packages."""
    if not (checkout / ".venv" / ".ready").exists():
        if all((checkout / name).read_bytes() == (ROOT / name).read_bytes() for name in REQUIREMENTS):
            return today
        print(f"setting up the packages of {checkout}", flush=True)
        subprocess.run(["make", "setup"], cwd=checkout, check=True)
    return checkout / ".venv" / "bin" / "python"


# --- words


def spoken_by(root: Path, text: str) -> str:
    """A command in the words that the checkout knows."""
    verb = text.split()[0]
    listed = [*RENAMED["words"], *RENAMED.get(verb, [])]
    return renamed(text, [one for one in listed if knows(root, one[2])])


@functools.cache
def knows(root: Path, sign: str) -> bool:
    """Whether a checkout's `conf/` has a file, or a file with some text in it."""
    name, _, text = sign.partition(": ")
    file = root / "conf" / name
    return file.is_file() and text in file.read_text()


def renamed(text: str, listed: Iterable[Renamed]) -> str:
    """Replace words that stand by themselves; `@word` is a step."""
    for old, new, _ in listed:
        ends = (r"(?<![\w@])" if old[0].isalnum() else ""), (r"(?!\w)" if old[-1].isalnum() else "")
        text = re.sub(ends[0] + re.escape(old) + ends[1], new, text)
    return text


def todays_word(text: str) -> str:
    kept = ("files",)
    return renamed(text, [one for kind, listed in RENAMED.items() if kind not in kept for one in listed])


def todays_file(path: str) -> str:
    return renamed(path, RENAMED["files"])


# --- steps


def all_steps(side: Side) -> list[Step]:
    """The steps of the base, which say what there is to compare; those of recorded outputs lie beside them."""
    listed = side.outputs / "steps.json"
    if side.root is None:
        return [Step(name, tuple(commands)) for name, commands in json.loads(listed.read_text()).items()]
    steps = steps_of(side.root)
    side.outputs.mkdir(parents=True, exist_ok=True)
    listed.write_text(json.dumps({step.name: step.commands for step in steps}, indent=1))
    return steps


def chosen(steps: list[Step], only: str | None) -> list[Step]:
    """Steps of a name, and those that they need."""
    wanted = {step.name for step in steps if fnmatch.fnmatch(step.name, only or "*")}
    if not wanted:
        complain(f"--only {only}: no such step; there are {', '.join(step.name for step in steps)}")
    for step in reversed(steps):
        wanted |= set(step.needs) if step.name in wanted else set()
    return [step for step in steps if step.name in wanted]


def run_all(sides: list[Side], steps: list[Step], jobs: int) -> dict[tuple[str, str], Ran]:
    """Run every step on every side, several at once; by side and step, what became of it."""
    running: dict[tuple[str, str], Future[Ran]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for step in steps:
            for side in sides:  # in turn, so that both go side by side
                needed = [running[side.name, name] for name in step.needs]
                running[side.name, step.name] = pool.submit(run_step, side, step, needed)
        try:
            tell(running)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or a fault of this program waits for all steps before it is seen
            raise
    return {name: future.result() for name, future in running.items()}


def tell(running: dict[tuple[str, str], Future[Ran]]) -> None:
    """Say what is done as it is done."""
    begun = time.monotonic()
    names = {future: name for name, future in running.items()}
    for done, future in enumerate(as_completed(names), 1):
        elapsed, ran = time.monotonic() - begun, future.result()
        left = elapsed / done * (len(names) - done)
        state = f"FAILED: {ran.failed}" if ran.failed else f"{ran.seconds:.0f} s"
        times = f"{elapsed:.0f} s so far, about {left:.0f} s left"
        print(f"[{done}/{len(names)}] {' '.join(names[future])}: {state} ({times})", flush=True)


def run_step(side: Side, step: Step, needed: list[Future[Ran]]) -> Ran:
    """Run a step once those that it needs are done, or take what it left before."""
    before = [future.result() for future in needed]
    commands = [side.command(text, step.name) for text in step.commands]
    key = hashlib.sha256(json.dumps([commands, [ran.key for ran in before]]).encode()).hexdigest()
    kept = kept_of(side, step)
    if side.reuse and kept and not kept.failed and (kept.key == key or side.root is None):
        return kept
    if side.root is None or any(ran.failed for ran in before):
        return Ran(0, "is not recorded" if side.root is None else "a step that it needs failed", key)
    return run_commands(side, step.name, commands, key)


def kept_of(side: Side, step: Step) -> Ran | None:
    path = side.outputs / f"{step.name}.json"
    return Ran(**json.loads(path.read_text())) if path.exists() else None


def run_commands(side: Side, step: str, commands: list[list[str]], key: str) -> Ran:
    begun = time.monotonic()
    side.outputs.mkdir(parents=True, exist_ok=True)
    record = side.outputs / f"{step}.json"
    record.unlink(missing_ok=True)
    shutil.rmtree(side.outputs / step, ignore_errors=True)
    with (side.outputs / f"{step}.txt").open("w") as said:
        failed = next(filter(None, (run_command(side, step, words, said) for words in commands)), "")
    ran = Ran(round(time.monotonic() - begun, 1), failed, key)
    record.write_text(json.dumps(vars(ran)))
    return ran


def run_command(side: Side, step: str, words: list[str], said) -> str:
    """Run one command in the folder of all outputs; why it failed, or nothing."""
    if words[0] == "copy":
        shutil.copytree(side.outputs / words[1], side.outputs / step)
        return ""
    if words[0] == "draw":
        draw(side.outputs / words[1])
        return ""
    call = [str(side.python), "-m", f"compseg.{words[0]}", *words[1:]]
    env = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(side.root / "src")}
    done = subprocess.run(call, cwd=side.outputs, env=env, stdout=said, stderr=subprocess.STDOUT, check=False)
    return f"exit code {done.returncode}, see {said.name}" if done.returncode else ""


# --- what came of it


def results(step: Step, base: Side, now: Side, ran: dict[tuple[str, str], Ran]) -> list[Compared]:
    """Every output of a step compared; a step that failed is a difference."""
    failed = [
        f"{side.name}: {ran[side.name, step.name].failed}" for side in (base, now) if ran[side.name, step.name].failed
    ]
    if failed:
        return [Compared("the step", 0, "; ".join(failed), counts=True)]
    return compare_folders(base.outputs / step.name, now.outputs / step.name, todays_word, todays_file)


def report(steps: dict[str, list[Compared]], ran: dict[tuple[str, str], Ran]) -> int:
    """Print what was run and compared, and keep it; 1 where a number differs."""
    differing = [f"{name}: {line}" for name, files in steps.items() for line in lines(files, counts=True)]
    told = [f"{name}: {line}" for name, files in steps.items() for line in lines(files, counts=False)]
    parts = [
        table(steps, ran),
        listed("Numbers that differ", differing),
        listed("Settings and wording that differ", told),
    ]
    text = "\n\n".join(filter(None, [*parts, verdict(len(differing))]))
    HERE.mkdir(exist_ok=True)
    (HERE / "report.md").write_text(text + "\n")
    print(f"\n{text}\n\n{HERE / 'report.md'}")
    return int(bool(differing))


def verdict(differing: int) -> str:
    return f"**{differing} outputs differ.**" if differing else "**Every number is the same.**"


def lines(files: list[Compared], counts: bool) -> list[str]:
    return [f"{one.file}: {one.difference}" for one in files if one.difference and one.counts == counts]


def listed(title: str, items: list[str]) -> str:
    return "\n".join([f"## {title}\n", *(f"* {item}" for item in items)]) if items else ""


def table(steps: dict[str, list[Compared]], ran: dict[tuple[str, str], Ran]) -> str:
    """A row a step: how long it took on both sides, how much was compared, and the outcome."""
    head = "| step | seconds, base | seconds, now | files | values | outcome |\n|---|---|---|---|---|---|"
    rows = [row(name, ran["base", name].seconds, ran["now", name].seconds, files) for name, files in steps.items()]
    return "\n".join([head, *rows, total(steps, ran)])


def row(name: str, base: float, now: float, files: list[Compared]) -> str:
    counted = [one for one in files if one.counts]
    differing = sum(bool(one.difference) for one in counted)
    values = sum(one.values for one in counted)
    outcome = f"{differing} differ" if differing else "equal"
    return f"| {name} | {base:.0f} | {now:.0f} | {len(counted)} | {values} | {outcome} |"


def total(steps: dict[str, list[Compared]], ran: dict[tuple[str, str], Ran]) -> str:
    base, now = (sum(one.seconds for (side, _), one in ran.items() if side == name) for name in ("base", "now"))
    return row("all", base, now, [one for files in steps.values() for one in files])


if __name__ == "__main__":
    sys.exit(main())
