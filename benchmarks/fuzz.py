"""`python benchmarks/fuzz.py --count 1000 --seed 0`: damaged files in place of sound ones, and what comes of them.

A tiny cohort, a run and images in each format are made; then one file at a time is changed at random, the verb that
reads it runs in a process of its own, and what it ended in is counted:

same        it ran, and its result is that of the sound file
line        it ended with one clear line and exit code 1
other       it ran, and its result is another; where a checksum could have told, that is wrong
traceback   it ended in anything else that can be read
hang        it was still running after `--seconds`
crash       a signal ended it

The exit code is 0 where there is no traceback, no hang, no crash, and nothing wrong in `other`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# A phantom of a few samples.
ARRAYS = (
    "source.arrays={A1: {holds: {T: 10, N: 10}, takes: {train: {healthy: 6, disease: 6}, "
    "val: {healthy: 4, disease: 4}}}, A2: {holds: {T: 4, N: 4}, takes: {train: {healthy: 2, disease: 2}, "
    "val: {healthy: 2, disease: 2}}}, A3: {holds: {T: 4, N: 4}, takes: {test: {healthy: 4, disease: 4}}}}"
)
TINY = (
    "data.path=c.zarr",
    "data.source.size=20",
    "data.source.channels=8",
    f"data.{ARRAYS}",
    "model.width=8",
    "data.batch_size=6",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.max_epochs=2",
)
PREPARE = ("prepare", "source=images", "out=made.zarr")
EVALUATE = ("evaluate", "run=run", "report=false", "split=val", "device=cpu")
PREDICT = ("predict", "run=run", "input=cube.npy", "out=mapped", "device=cpu")
RESUME = (
    "train", *TINY[:-1], "trainer.max_epochs=3", "hydra.run.dir=run", "trainer.resume=auto", "evaluation.split=none",
)  # fmt: skip
MEMORY = 24 * 2**30  # bytes of addresses that a verb may ask for: more is a request that a damaged header made
OUTCOMES = ("same", "line", "other", "traceback", "hang", "crash")
HOSTILE = (None, True, -1, 0, 1e308, float("nan"), "", "x" * 5000, "../../x", [], {}, [[]] * 3, 2**63, "1", "=1+1")


@dataclass(frozen=True)
class Group:
    """Files of one format, what reads them, and what a result of it is.

    Attributes:
        files: Patterns below the folder.
        command: The verb and its arguments.
        result: Files that hold the result, as patterns.
        share: Of the mutations, by weight.
        checked: Whether a checksum, the format's own or that of a run or a cohort, could tell any change of content.
    """

    files: tuple[str, ...]
    command: tuple[str, ...]
    result: tuple[str, ...]
    share: float
    checked: bool = False

    def needs(self, name: str) -> bool:
        """Whether the verb reads what lies under this name at the top of the folder."""
        named = {part for text in (*self.files, *self.command) for part in re.split(r"[=/]", text)}
        return name in named or (name == "c.zarr" and self.command[0] in ("train", "evaluate"))


def _images(kind: str, share: float = 1.0, files: str = "a.*", **more: Any) -> Group:
    command = (*PREPARE, f"source.manifest={kind}/labels.csv", *more.pop("options", ()))
    return Group((f"{kind}/{files}",), command, ("made.zarr/zarr.json",), share, **more)


GROUPS = {
    "npy": _images("npy"),
    "npz": _images("npz", checked=True),
    "mat": _images("mat"),
    "mat73": _images("mat73"),
    "png": _images("png", checked=True),
    "jpeg": _images("jpeg"),
    "bmp": _images("bmp"),
    "tiff": _images("tiff"),
    "tiff, deflate": _images("tiffz"),
    "mask": _images("masks", files="a_mask.png", checked=True),
    "manifest": _images("npy", files="labels.csv"),
    "axis.csv": _images("axis", files="axis.csv", options=("source.axis=axis/axis.csv",)),
    "axis.npy": _images("axis", files="axis.npy", options=("source.axis=axis/axis.npy",)),
    "image to predict": Group(("cube.npy",), PREDICT, ("mapped/areas.csv", "mapped/maps/*.npy"), 0.5),
    "cohort, table": Group(("c.zarr/zarr.json",), EVALUATE, ("run/metrics.json",), 1.0, checked=True),
    "cohort, arrays": Group(("c.zarr/samples/*/*/zarr.json",), ("check", "cohort=c.zarr"), (), 1.0, checked=True),
    "cohort, blocks": Group(
        ("c.zarr/samples/*/*/c/**/*",), ("predict", *PREDICT[1:2], "input=c.zarr", *PREDICT[3:]),
        ("mapped/areas.csv", "mapped/maps/*.npy"), 1.0, checked=True,
    ),
    "segmenter.json": Group(("run/segmenter/segmenter.json",), PREDICT, ("mapped/areas.csv", "mapped/maps/*.npy"), 1.5),
    "weights": Group(
        ("run/segmenter/weights.safetensors",), PREDICT, ("mapped/areas.csv", "mapped/maps/*.npy"), 1.0, checked=True
    ),
    "last.ckpt": Group(("run/checkpoints/last.ckpt",), RESUME, ("run/history.csv",), 0.7, checked=True),
    "config.yaml": Group(("run/config.yaml",), EVALUATE, ("run/metrics.json",), 1.0, checked=True),
    "history.csv, environment.json": Group(
        ("run/history.csv", "run/environment.json"), ("evaluate", "run=run", "device=cpu"), ("run/report.html",), 0.9,
        checked=True,
    ),
    "job.json, metrics.json": Group(
        ("sweep/0/job.json", "sweep/0/metrics.json", "sweep/0/history.csv"), ("sweep_report", "dir=sweep"),
        ("sweep/sweep.csv",), 1.0, checked=True,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="mutations of all formats together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="that a verb may take")
    parser.add_argument("--only", default="", help="formats whose name holds this")
    parser.add_argument("--base", type=Path, help="where the sound files are, or are made; a folder to keep")
    args = parser.parse_args()
    with made(args.base) as base:
        found = fuzz(base, args.count, args.seed, args.seconds, args.only)
    print(table(found))
    sys.exit(bool(wrong(found)))


# --- what is changed


@contextmanager
def made(base: Path | None) -> Iterator[Path]:
    """The folder of sound files, made where it is absent; of a temporary one where none is given."""
    with tempfile.TemporaryDirectory() as scratch:
        base = base or Path(scratch) / "base"
        if not base.exists():
            make(base)
        yield base


def make(base: Path) -> None:
    """The sound files."""
    base.mkdir(parents=True)
    for verb, arguments in (
        ("train", [*TINY, "hydra.run.dir=run"]),
        ("train", ["-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep"]),
    ):
        command = [sys.executable, "-m", f"compseg.{verb}", *arguments]
        subprocess.run(command, cwd=base, check=True, env={**os.environ, "WANDB_MODE": "disabled"})
    generator = np.random.default_rng(0)
    np.save(base / "cube.npy", generator.random((16, 16, 8), np.float32) + 1)
    for kind in ("npy", "npz", "mat", "mat73", "png", "jpeg", "bmp", "tiff", "tiffz", "masks", "axis"):
        folder = base / kind
        folder.mkdir()
        rows = [_write_image(folder, kind, name, generator) for name in ("a", "b")]
        rows = [row | {"label": label, "split": "train"} for label, row in enumerate(rows)]
        with (folder / "labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    np.save(base / "axis/axis.npy", np.linspace(1800, 1000, 4))
    (base / "axis/axis.csv").write_text("wavenumber_per_cm\n1800\n1500\n1250\n1000\n")


def _write_image(folder: Path, kind: str, name: str, generator: np.random.Generator) -> dict[str, Any]:
    import h5py
    import scipy.io
    import tifffile
    from PIL import Image

    suffix = {"masks": "npy", "axis": "npy", "mat73": "mat", "tiffz": "tiff"}.get(kind, kind)
    path = folder / f"{name}.{suffix}"
    cube = generator.random((12, 12, 4), np.float32) + 1
    colours = generator.integers(1, 255, (12, 12, 3), np.uint8)
    if kind == "mat73":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["cube"] = cube.T
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    elif suffix == "npy":
        np.save(path, cube)
    elif suffix == "npz":
        np.savez_compressed(path, cube=cube)
    elif suffix == "mat":
        scipy.io.savemat(path, {"cube": cube}, do_compression=True)
    elif suffix == "tiff":
        zipped = "zlib" if kind == "tiffz" else None
        tifffile.imwrite(path, np.moveaxis(cube, -1, 0), photometric="minisblack", compression=zipped)
    else:
        Image.fromarray(colours).save(path)
    row: dict[str, Any] = {"sample": name, "image": path.name}
    if kind == "masks":
        Image.fromarray(np.uint8(generator.random((12, 12)) > 0.5) * 255).save(folder / f"{name}_mask.png")
        row["tissue"] = f"{name}_mask.png"
    return row


def mutate(path: Path, chance: random.Random) -> str:
    """Change a file; what was done, in a word."""
    content = path.read_bytes()
    kinds: list[Callable[[bytes, random.Random], bytes]] = [flip, truncate, insert, swap, blank]
    if path.suffix in (".json", ".csv", ".yaml"):
        kinds += [edit_json if path.suffix == ".json" else edit_text] * 5
    kind = chance.choice(kinds)
    with suppress(ValueError, IndexError):  # an edit of what is no JSON any more, or of nothing
        changed = kind(content, chance)
        if changed != content:
            path.write_bytes(changed)
            return kind.__name__
    path.write_bytes(content + b"\0")
    return "append"


def flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.choice((0, chance.randrange(len(content)), len(content) - 1))]


def insert(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.randbytes(chance.choice((1, 4, 64))) + content[at:]


def swap(content: bytes, chance: random.Random) -> bytes:
    one, other, size = chance.randrange(len(content)), chance.randrange(len(content)), chance.choice((1, 4, 32))
    changed = bytearray(content)
    changed[one : one + size], changed[other : other + size] = content[other : other + size], content[one : one + size]
    return bytes(changed)


def blank(content: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(content)), chance.choice((1, 16, 256))
    return content[:at] + bytes(min(size, len(content) - at)) + content[at + size :]


def edit_json(content: bytes, chance: random.Random) -> bytes:
    """Replace or remove one value, at any depth."""
    root = json.loads(content)
    places = list(_places(root))
    holder, key = chance.choice(places)
    if chance.random() < 0.2:
        del holder[key]
    else:
        holder[key] = chance.choice(HOSTILE)
    return json.dumps(root, indent=2).encode()


def _places(node: Any) -> Any:
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from _places(node[key])


def edit_text(content: bytes, chance: random.Random) -> bytes:
    """Replace one word, number or separator."""
    words = re.split(r"([\s,:{}\[\]]+)", content.decode())
    words[chance.randrange(len(words))] = str(chance.choice(HOSTILE))
    return "".join(words).encode()


# --- what comes of it


@dataclass(frozen=True)
class Case:
    """One mutation and what came of it."""

    group: str
    what: str
    outcome: str
    words: str
    names_file: bool


def fuzz(base: Path, count: int, seed: int, seconds: float, only: str = "") -> list[Case]:
    """Change files of all formats, each as often as its share says, and run what reads them."""
    import_verbs()
    groups = {name: group for name, group in GROUPS.items() if only in name}
    whole = sum(group.share for group in groups.values())
    chosen = [name for name, group in groups.items() for _ in range(max(1, round(count * group.share / whole)))]
    sound: dict[tuple[str, ...], str] = {}
    cases, begun = [], time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(chosen):
            group, chance = GROUPS[name], random.Random(f"{seed} {number} {name}")
            if group.command not in sound:
                outcome, sound[group.command] = run_on(base, Path(scratch), group, seconds, lambda _: "")[1:3]
                if outcome != "ran":
                    raise RuntimeError(f"{name}: the sound files end in {outcome}: {sound[group.command]}")
            came = run_on(base, Path(scratch), group, seconds, _mutation(group, chance))
            cases.append(case := _case(name, sound[group.command], came))
            if case.outcome in ("traceback", "hang", "crash") or case in wrong([case]):
                print(f"{name}: {case.what}: {case.outcome}: {case.words}", flush=True)
            if number % 50 == 49:
                print(f"{number + 1} of {len(chosen)}, {time.monotonic() - begun:.0f} s", flush=True)
    return cases


def import_verbs() -> None:
    """Import once what each child needs; nothing is computed here, so that no thread is lost in a fork."""
    for verb in ("prepare", "check", "train", "evaluate", "predict", "sweep_report", "compare"):
        importlib.import_module(f"compseg.{verb}")
    for room in ("training", "report", "studies", "inference.images", "inference.prediction", "sources", "cohort"):
        importlib.import_module(f"compseg.{room}")


def _mutation(group: Group, chance: random.Random) -> Callable[[Path], str]:
    def change(work: Path) -> str:
        files = sorted(path for pattern in group.files for path in work.glob(pattern) if path.is_file())
        path = chance.choice(files)
        return f"{path.relative_to(work)} {mutate(path, chance)}"

    return change


def _case(name: str, sound: str, came: tuple[str, str, str]) -> Case:
    what, outcome, words = came
    if outcome == "ran":
        outcome, words = ("same" if words == sound else "other"), ""
    return Case(name, what, outcome, words, Path(what.split()[0]).name in words)


def run_on(
    base: Path, scratch: Path, group: Group, seconds: float, change: Callable[[Path], str]
) -> tuple[str, str, str]:
    """Run a verb on a changed copy of the files, in a process of its own.

    Returns:
        What was changed; how it ended, `ran` where it succeeded; and the digest of the result, or its words.
    """
    work = scratch / "work"
    shutil.rmtree(work, ignore_errors=True)
    left = [path.name for path in base.iterdir() if not group.needs(path.name)]
    shutil.copytree(base, work, ignore=lambda folder, _: left if Path(folder) == base else ())
    what = change(work)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _in_the_child(work, group.command, write)
    os.close(write)
    answer, deadline = b"", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and select.select([read], [], [], left)[0]:
        if not (piece := os.read(read, 65536)):
            break
        answer += piece
    os.close(read)
    if left <= 0:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if left <= 0:
        return what, "hang", f"after {seconds:.0f} s"
    if status or not answer:
        return what, "crash", f"exit code {status}"
    outcome, words = json.loads(answer)
    return what, outcome, digest(work, group.result) if outcome == "ran" else words


def _in_the_child(work: Path, command: Sequence[str], write: int) -> None:
    """Run the verb and write down how it ended; never returns."""
    try:
        os.chdir(work)
        output = os.open("output.txt", os.O_RDWR | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.write(write, json.dumps(ended(command)).encode())
    finally:
        os._exit(0)


def ended(command: Sequence[str]) -> tuple[str, str]:
    """Run a verb in this process, whose output goes to `output.txt`; how it ended, and its words."""
    verb, *arguments = command
    sys.argv = [f"compseg.{verb}", *arguments]
    try:
        importlib.import_module(f"compseg.{verb}").main()
    except SystemExit as end:
        if not end.code:
            return "ran", ""
        sys.stdout.flush()
        output = Path("output.txt").read_text(errors="replace")
        lines = [line for line in output.splitlines() if line.startswith(f"compseg {verb}")]
        if end.code == 1 and len(lines) == 1 and "Traceback" not in output:
            return "line", lines[0][:2000]
        return "traceback", f"exit code {end.code}: {output[-500:]}"
    except BaseException as error:
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if "compseg" in frame.filename][-1]
        return "traceback", f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
    return "ran", ""


def digest(work: Path, patterns: Sequence[str]) -> str:
    """Of the files of a result: what stands in them, without what a clock or a path has written."""
    found = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in work.glob(pattern) if path.is_file()):
        found.update(path.name.encode() + _content(path))
    return found.hexdigest()


def _content(path: Path) -> bytes:
    if path.name == "zarr.json":
        table = json.loads(path.read_text()).get("attributes", {}).get("compseg", {})
        return json.dumps([table.get("channels"), table.get("samples")]).encode()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return json.dumps([row | {"seconds": "", "hours": ""} for row in csv.DictReader(file)]).encode()
    return path.read_bytes()


# --- the table


def wrong(cases: Sequence[Case]) -> list[Case]:
    """Those that must not be: all but a clear line, the same result, or another one that nothing could tell."""
    allowed = ("same", "line")
    return [
        case
        for case in cases
        if case.outcome not in allowed and not (case.outcome == "other" and not GROUPS[case.group].checked)
    ]


def table(cases: Sequence[Case]) -> str:
    """Shares by format, in Markdown."""
    lines = [
        "| format | mutations | " + " | ".join(OUTCOMES) + " | lines that name the file |",
        "|---|" + "---|" * (len(OUTCOMES) + 2),
    ]
    for name in [*dict.fromkeys(case.group for case in cases), "all"]:
        members = [case for case in cases if name in ("all", case.group)]
        counts = Counter(case.outcome for case in members)
        shares = [f"{n} ({n / len(members):.0%})" if (n := counts[outcome]) else "" for outcome in OUTCOMES]
        mark = "" if name == "all" or not GROUPS[name].checked else " (checked)"
        named = sum(case.names_file for case in members if case.outcome == "line")
        lines.append(f"| {name}{mark} | {len(members)} | {' | '.join(shares)} | {named} of {counts['line']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
