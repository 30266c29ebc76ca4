"""`python benchmarks/kills.py --count 60 --seed 0`: verbs are killed at random and run again: is all the same?

Each command runs once undisturbed. Then, again and again in a fresh folder, its process is ended by SIGKILL at a random
moment and the same command is given once more: its result must be that of the undisturbed one, and the folder must hold
the same files, none half written or forgotten. The exit code is 0 where all of that holds.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fuzz import ARRAYS, TINY, digest, ended, import_verbs, made

TRAIN = ("train", *TINY[:-1], "trainer.max_epochs=4", "hydra.run.dir=new", "trainer.resume=auto")
OF_A_RUN = ("metrics.json", "samples.csv", "history.csv", "segmenter/*", "maps/*")
PATIENCE = 600  # seconds for a whole command


@dataclass(frozen=True)
class Killed:
    """A command to kill.

    Attributes:
        command: The verb and its arguments.
        folder: Where it writes.
        result: Files there whose content is the result, as patterns.
        share: Of the kills, by weight.
        first: File that is there before the moment is chosen; the moment is then within `within` seconds.
        within: Seconds; None: at any time until the end.
        part: Of the whole time that the moment is chosen from.
    """

    command: tuple[str, ...]
    folder: str
    result: tuple[str, ...]
    share: float
    first: str = ""
    within: float | None = None
    part: float = 1.0


KILLED = {
    "prepare": Killed(
        ("prepare", "source=phantom", "source.size=48", ARRAYS, "out=made.zarr"),
        "made.zarr", ("**/zarr.json", "**/c/**/*"), 12,
    ),
    "train, start": Killed(TRAIN, "new", OF_A_RUN, 8, part=0.4),
    "train, epochs": Killed(TRAIN, "new", OF_A_RUN, 10, first="new/checkpoints/last.ckpt", within=3),
    "train, cache=none": Killed((*TRAIN, "data.cache=none", "data.workers=1"), "new", OF_A_RUN, 6),
    "evaluate": Killed(("evaluate", "run=run", "device=cpu"), "run", OF_A_RUN, 8),
    "predict": Killed(
        ("predict", "run=run", "input=c.zarr", "out=new", "device=cpu"), "new", ("areas.csv", "maps/*"), 8
    ),
    "export": Killed(("export", "maps=run", "format=geojson", "out=new"), "new", ("*",), 4),
    "sweep": Killed(
        ("train", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=new", "evaluation.report=false"),
        "new", tuple(f"*/{name}" for name in OF_A_RUN[:4]), 4,
    ),
    "compare": Killed(
        (
            "compare", "cohorts={tiny: c.zarr}", "out=new", "methods=[mean,supervised]", "seeds=1", "jobs=1",
            "overrides={model.width:8,data.batch_size:6,trainer.max_epochs:2,trainer.accelerator:cpu}",
        ),
        "new", tuple(f"**/{name}" for name in OF_A_RUN[:4]), 4,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="kills of all commands together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--base", type=Path, help="where the files to start from are, or are made; a folder to keep")
    args = parser.parse_args()
    with made(args.base) as base:
        sys.exit(bool(kill_all(base, args.count, args.seed, args.only)))


def kill_all(base: Path, count: int, seed: int = 0, only: str = "") -> list[str]:
    """Kill each command as often as its share says, and print a line for each; what was not as it must be."""
    import_verbs()
    chosen = {name: one for name, one in KILLED.items() if only in name}
    whole = sum(one.share for one in chosen.values())
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, one in chosen.items():
            work = Path(scratch) / "work"
            begun = time.monotonic()
            run(base, work, one.command)
            took, sound = time.monotonic() - begun, _found(work, one)
            for number in range(max(1, round(count * one.share / whole))):
                said = _kill_once(base, work, one, took, sound, random.Random(f"{seed} {name} {number}"))
                print(f"{name}: {said}", flush=True)
                wrong += [f"{name}: {said}"] * (not said.endswith("the same"))
    print(f"{len(wrong)} not the same")
    return wrong


def _kill_once(
    base: Path, work: Path, one: Killed, took: float, sound: tuple[str, set[str]], chance: random.Random
) -> str:
    moment = _kill(base, work, one, took, chance)
    left = _others(work)
    while any(_alive(pid) for pid in left) and (time.sleep(0.2) or True):
        pass  # jobs of a sweep outlive it, and end by themselves
    half = sorted(path.name for path in work.rglob("*") if path.name.endswith((".partial", ".old")))
    code, output = run(base, work, one.command, fresh=False)
    content, files = _found(work, one)
    said = f"killed {moment}{', with ' + ', '.join(half[:3]) if half else ''}: "
    if code:
        return f"{said}the second run ended in {code}: {output[-400:]}"
    if content != sound[0]:
        return f"{said}another result"
    if files != sound[1]:
        return f"{said}other files: {sorted(files ^ sound[1])[:5]}"
    return f"{said}the same"


def _kill(base: Path, work: Path, one: Killed, took: float, chance: random.Random) -> str:
    """Run the command and kill it; again where it ended before."""
    while True:
        child, begun = start(base, work, one.command), time.monotonic()
        while one.first and not (work / one.first).exists() and _alive(child):
            time.sleep(0.02)
        seconds = chance.uniform(0, one.within or took * one.part)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and _alive(child):
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
            return f"after {time.monotonic() - begun:.1f} s"


def run(base: Path, work: Path, command: Sequence[str], fresh: bool = True) -> tuple[int, str]:
    """Run a command to its end; its exit code and what it printed."""
    child = start(base, work, command, fresh)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, (work / "output.txt").read_text(errors="replace")


def start(base: Path, work: Path, command: Sequence[str], fresh: bool = True) -> int:
    """Start a command in a process of its own, which has imported everything; its number."""
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
    if child := os.fork():
        return child
    code = 1
    try:
        os.chdir(work)
        output = os.open("output.txt", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        outcome, words = ended(command)
        code = 0 if outcome == "ran" else 1
        os.write(2, words.encode())
    finally:
        os._exit(code)


def _found(work: Path, one: Killed) -> tuple[str, set[str]]:
    """The digest of the result, and all files beside it."""
    folder = work / one.folder
    files = {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}
    return digest(folder, one.result), files


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be asked for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _others(work: Path) -> list[int]:
    """Processes that work in a folder, as jobs and loader workers do that a kill has left alone."""
    found = []
    for place in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if (place / "cwd").resolve() == work.resolve():
                found.append(int(place.name))
    return found


if __name__ == "__main__":
    main()
