"""`python -m compseg.doctor`: whether this machine has what compseg needs, and how to fix what it lacks."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from compseg.api import FAIL, PASS, WARN, Finding, make_callable
from compseg.config import verb
from compseg.errors import CompsegError, cause, require

if TYPE_CHECKING:
    from compseg.cohort import Cohort

TESTED = ((3, 11), (3, 13))  # Pythons, the first and the last
FOR_DEVELOPERS = ("dev", "docs")  # extras
GIB = 2**30
STEPS = 4  # of a trial
Findings = Iterator[Finding]


@verb("doctor")
def main(cfg: DictConfig) -> None:
    """Look whether this machine has what compseg needs, and say how to fix what it lacks.

    python -m compseg.doctor
    python -m compseg.doctor cohort=data/mine.zarr
    python -m compseg.doctor cohort=s3://bucket/mine.zarr
    """
    GlobalHydra.instance().clear()  # this verb is composed; what it composes from here on is a training run
    looks: dict[str, Callable[[], Findings]] = dict(LOOKS)
    if cfg.cohort is not None:
        overrides: Any = OmegaConf.to_container(cfg.overrides) if cfg.overrides else {}
        looks["cohort"] = lambda: training(cfg.cohort, overrides)
    levels = []
    for finding in (found for subject, look in looks.items() for found in examined(subject, look)):
        print(finding, flush=True)  # as they come: a trial takes a minute
        levels.append(finding.level)
    failed, warned = levels.count(FAIL), levels.count(WARN)
    require(not failed, f"{failed} of {len(levels)} checks failed; the lines with {FAIL} say how to fix each")
    print(f"{len(levels)} checks, {f'{warned} with a warning' if warned else 'all passed'}")


def examined(subject: str, look: Callable[[], Findings]) -> Findings:
    """What a check finds; one that ends in an error has failed."""
    try:
        yield from look()
    except Exception as error:  # of which kinds, no library promises
        words, _, fix = str(error).partition("; ") if isinstance(error, CompsegError) else (cause(error), "", "")
        yield Finding(FAIL, subject, words, fix or "install what it names again")


def python() -> Findings:
    """The interpreter."""
    first, last = (".".join(map(str, each)) for each in TESTED)
    known = TESTED[0] <= sys.version_info[:2] <= TESTED[1]
    fix = "" if known else f"compseg is tested with {first} to {last}"
    yield Finding(PASS if known else WARN, "python", f"{sys.version.split()[0]} in {sys.prefix}", fix)


def packages() -> Findings:
    """What compseg depends on, and its extras, by the versions that its metadata asks for."""
    from importlib.metadata import metadata, version

    missing = lacking()
    wrong = missing.pop("", [])
    fix = "pip install --upgrade compseg" if wrong else ""
    found = f"compseg {version('compseg')} lacks {', '.join(wrong)}" if wrong else f"compseg {version('compseg')}"
    yield Finding(FAIL if wrong else PASS, "packages", found, fix)
    extras = [each for each in metadata("compseg").get_all("Provides-Extra") or [] if each not in FOR_DEVELOPERS]
    there, absent = ([each for each in extras if (each in missing) == gone] for gone in (False, True))
    found = f"{', '.join(there) or 'none'} installed"
    yield Finding(PASS, "extras", found, f"for more: pip install 'compseg[{','.join(absent)}]'" if absent else "")


def lacking() -> dict[str, list[str]]:
    """The requirements that are not met, by extra; those of compseg itself by an empty word."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    found: dict[str, list[str]] = {}
    for one in map(Requirement, requires("compseg") or []):
        extra = str(one.marker).rpartition("== ")[2].strip("\"'") if one.marker else ""
        try:
            if one.specifier.contains(there := version(one.name), prereleases=True):
                continue
        except PackageNotFoundError:
            there = "not installed"
        found.setdefault(extra, []).append(f"{one.name}{one.specifier} ({there})")
    return found


def torch_and_gpus() -> Findings:
    """torch, and the graphics cards that it can use."""
    import torch

    cuda = torch.version.cuda
    yield Finding(PASS, "torch", f"{torch.__version__}, built {f'for CUDA {cuda}' if cuda else 'for processors alone'}")
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi")
        found = "none that torch can use" if driver else "none; training and maps take the processor"
        fix = f"install a driver for CUDA {cuda}" if cuda else "install torch with CUDA (pytorch.org)"
        yield Finding(WARN if driver else PASS, "GPU", found, fix if driver else "")
    for number in range(torch.cuda.device_count()):
        free, total = (size / GIB for size in torch.cuda.mem_get_info(number))
        with torch.cuda.device(number):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            (torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")).cpu()
        found = f"{torch.cuda.get_device_name(number)}, {free:.0f} of {total:.0f} GiB free"
        found += ", with bf16" if bf16 else ", without bf16: training takes float32"
        busy = free < total / 2
        yield Finding(WARN if busy else PASS, f"GPU {number}", found, "others compute on it" * busy)


def threads() -> Findings:
    """Cores, and how many threads torch starts on them."""
    import torch

    from compseg.device import usable_cores

    cores, used, said = usable_cores(), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    found = f"{used} on {cores} cores" + f" (OMP_NUM_THREADS={said})" * bool(said)
    # More threads than cores wait for one another.
    many = used > cores
    yield Finding(WARN if many else PASS, "threads", found, f"give OMP_NUM_THREADS={cores}" * many)


def memory() -> Findings:
    """What this process may still use."""
    from compseg.memory import free_host_memory

    free = free_host_memory() / GIB
    level = PASS if free >= 4 else WARN if free >= 1 else FAIL
    yield Finding(level, "memory", f"{free:.1f} GiB free", "" if level == PASS else "end other programs")


def disk() -> Findings:
    """Room for runs and cohorts, here."""
    from compseg.files import require_writable

    require_writable(Path("outputs"), "hydra.run.dir")
    free = shutil.disk_usage(".").free / GIB
    level = PASS if free >= 10 else WARN if free >= 1 else FAIL
    fix = "" if level == PASS else "a run takes some 100 MB, a cohort as much as its images: free some"
    yield Finding(level, "disk", f"{free:.0f} GiB free here", fix)


def stores() -> Findings:
    """A cohort's array, written and read."""
    import numpy as np
    import zarr

    from compseg.cohort.layout import write_array

    pixels = np.random.default_rng(0).random((20, 20, 8)).astype(np.float16)
    with tempfile.TemporaryDirectory(prefix="compseg-doctor-") as folder:
        root = zarr.open_group(folder, mode="w")
        write_array(root, "image", pixels, chunk=8)
        same = bool((np.asarray(root["image"][...]) == pixels).all())  # type: ignore[index]
    fix = "" if same else "install zarr and numcodecs again"
    found = f"zarr {zarr.__version__} {'writes and reads back' if same else 'reads back something else'}"
    yield Finding(PASS if same else FAIL, "store", found, fix)


def codecs() -> Findings:
    """TIFF pictures by every compression that is common."""
    from io import BytesIO

    import numpy as np
    import tifffile

    pixels, bad = np.arange(256, dtype=np.uint8).reshape(16, 16), []
    for name in ("lzw", "deflate", "packbits", "zstd"):
        try:
            tifffile.imwrite(file := BytesIO(), pixels, compression=name)
            file.seek(0)
            same = bool((tifffile.imread(file) == pixels).all())
        except Exception:  # of which kinds, the codecs do not promise
            same = False
        bad += [] if same else [name]
    found = f"TIFF with {', '.join(bad)} cannot be read" if bad else "TIFF with LZW, Deflate, PackBits, Zstandard"
    yield Finding(FAIL if bad else PASS, "codecs", found, "pip install --upgrade imagecodecs" * bool(bad))


def wandb() -> Findings:
    """Whether W&B has a key; nothing is sent."""
    from compseg.monitor.dashboards import has_key

    found = "a key is there" if has_key() else "no key: logger=wandb keeps runs here, to be sent later"
    yield Finding(PASS, "W&B", found, "" if has_key() else "wandb login")


def training(path: str, overrides: Mapping[str, Any]) -> Findings:
    """What training on a cohort would take: its problems, its memory, and the time of an epoch by a few steps of it."""
    from compseg.batches.datamodule import decoded_size
    from compseg.cohort import Cohort, is_url, refuse_fatal
    from compseg.memory import free_host_memory

    began = perf_counter()
    cohort = Cohort.open(path)
    if is_url(path):
        yield storage(cohort, perf_counter() - began)
    refuse_fatal(cohort)
    infos = [info for info in cohort.infos if info.split in ("train", "val")]
    yield Finding(PASS, "cohort", f"{path}: {len(infos)} samples to learn from")
    need, free = decoded_size(cohort, infos) / GIB, free_host_memory() / GIB
    fits = need < free / 2
    fix = "" if fits else "they are read again in each epoch: a fast disk helps, or data.crop"
    yield Finding(PASS if fits else WARN, "samples", f"{need:.2f} GiB in memory, {free:.1f} GiB are free", fix)
    yield trial(cohort, overrides)


def storage(cohort: Cohort, answered: float) -> Finding:
    """How fast object storage, which has answered, gives a sample."""
    began = perf_counter()
    size = cohort.image(cohort.infos[0].name).nbytes / 2**20
    found = f"answers in {answered:.2f} s, gives a sample of {size:.1f} MiB in {perf_counter() - began:.2f} s"
    return Finding(PASS, "storage", found)


def trial(cohort: Cohort, overrides: Mapping[str, Any]) -> Finding:
    """A short training in a process of its own: seconds an epoch, and the memory that it took."""
    import resource
    import subprocess

    from compseg.config import compose
    from compseg.config.literals import literal, quoted
    from compseg.run_folder import read_history

    chosen = [f"{key}={literal(value)}" for key, value in overrides.items()]
    given = ["data=cohort", f"data.path={quoted(cohort.path)}", *chosen]
    few = [f"+trainer.limit_train_batches={STEPS}", "+trainer.limit_val_batches=1", "trainer.max_epochs=2"]
    quiet = ["evaluation.split=none", "callbacks.pictures.every=0", "trainer.devices=1", "n_init=1"]
    with tempfile.TemporaryDirectory(prefix="compseg-doctor-") as folder:
        words = ["-m", "compseg.train", *given, *few, *quiet, f"hydra.run.dir={quoted(folder)}"]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        history = read_history(Path(folder))
    if done.returncode:
        said = (done.stderr.splitlines() or ["no word"])[-1].partition(": ")[2]
        what, _, fix = said.partition("; ")
        return Finding(FAIL, "trial", what, fix)
    labels = [info.label for info in cohort.split("train")]
    steps = 2 * min(labels.count(0), labels.count(1)) // compose("train", given).data.batch_size
    # The first epoch reads and warms up.
    seconds = float(history[-1]["seconds"]) * max(steps / STEPS, 1)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB
    return Finding(PASS, "trial", f"about {seconds:.1f} s an epoch of {steps} steps, {peak:.1f} GiB of memory")


LOOKS: dict[str, Callable[[], Findings]] = {
    "python": python,
    "packages": packages,
    "torch": torch_and_gpus,
    "threads": threads,
    "memory": memory,
    "disk": disk,
    "store": stores,
    "codecs": codecs,
    "W&B": wandb,
}

make_callable(__name__)
if __name__ == "__main__":
    main()
