"""The decorator that makes a verb: a function of the configuration becomes a command whose errors are one line."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from compseg import log
from compseg.config.help import asked, page
from compseg.config.hints import explain
from compseg.config.keys import groups_of
from compseg.config.names import check_text, keep_text
from compseg.config.schema import register_schemas
from compseg.config.targets import check_targets
from compseg.errors import Stopped
from compseg.file_names import file_name

Task = Callable[[DictConfig], Any]

# What SLURM calls a shell on one of its nodes; a command typed there is not a job of its own.
_SHELLS = ("bash", "interactive")
_RUNS = itertools.count()  # that this process has named, of those that torchrun has started


def conf_dir() -> Path:
    """The folder of configuration files: the one in the installed package, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def compose(name: str, overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """The configuration of a verb, for scripts and notebooks that call the rooms themselves.

    Args:
        name: The verb.
        overrides: What its command line would hold, for example `["model=unet", "seed=1"]`.
        with_hydra: Whether to add what Hydra keeps under `hydra`, with the choices that were made.

    Returns:
        The configuration as the verb would get it; not yet checked by `check_targets`.
    """
    register()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        kept = _as_typed(name, overrides)
        return hydra.compose(name, kept, return_hydra_config=with_hydra)


def verb(name: str, sweep_job: Task | None = None, announces: bool = False) -> Callable[[Task], Callable[..., Any]]:
    """Make a command of a function: `conf/NAME.yaml` is composed with the command line, checked and handed over.

    An error of the user ends the command with one line on stderr and exit code 1 (an unknown flag with 2, an interrupt
    with 130, another signal that asks for the end with 128 and its number). Any other error is one of the program and
    keeps its traceback; `COMPSEG_DEBUG=1` keeps them all. Called with a configuration, the function runs directly: its
    value is returned and its exceptions are not caught.

    Args:
        name: The verb, and the name of its file in `conf/`.
        sweep_job: Runs a job of a sweep (`-m`) in place of the function, with a configuration that is not yet checked.
        announces: Whether to say where its files go, before libraries are imported, which takes seconds.

    Returns:
        A decorator for a function of the composed configuration, whose return value is what a sweeper optimises.
    """

    def decorate(task: Task) -> Callable[..., Any]:
        @functools.wraps(task)
        def job(cfg: DictConfig) -> Any:
            # Errors are caught inside the job as well, or Hydra announces a failed job in lines of its own.
            with _errors_in_one_line(name):
                if sweep_job and HydraConfig.get().mode == RunMode.MULTIRUN:
                    log.Loading.end()  # a job tells what it loads itself
                    return sweep_job(cfg)
                check_text(cfg)
                if announces:
                    log.log(f"run folder: {HydraConfig.get().runtime.output_dir}")
                    _say_that_it_loads(name)
                check_targets(cfg)
                return task(cfg)

        @functools.wraps(task)
        def main(cfg: DictConfig | None = None) -> Any:
            if cfg is not None:
                return task(cfg)
            with _errors_in_one_line(name):
                if {"-h", "--help"} & set(sys.argv[1:]):
                    return _print_to_reader(_help(name, inspect.getdoc(task) or "", sys.argv[1:]))
                if not announces or {"-m", "--multirun"} & set(sys.argv):
                    _say_that_it_loads(name)
                register()
                sys.argv[1:] = _as_typed(name, sys.argv[1:])
                if launched_rank():  # rank 0 writes the configuration; others leave a log of their own and no more
                    sys.argv += [f"hydra.job.name={name}_ddp_process_{launched_rank()}", "hydra.output_subdir=null"]
                return hydra.main(config_path=str(conf_dir()), config_name=name, version_base="1.3")(job)()

        return main

    return decorate


def _as_typed(name: str, overrides: Sequence[str]) -> list[str]:
    groups = [folder.name for folder in conf_dir().iterdir() if folder.is_dir()]
    return [keep_text(name, override, groups) for override in overrides]


def _say_that_it_loads(name: str) -> None:
    """To somebody who sits before a terminal and waits for torch."""
    if stream := log.terminal():
        sys.meta_path.insert(0, log.Loading(name, stream))


def register() -> None:
    """Make the schemas, `${started:}` and `${file_name:}` known to Hydra."""
    register_schemas()
    OmegaConf.register_new_resolver("file_name", lambda name: file_name(str(name)), replace=True)
    OmegaConf.register_new_resolver("started", _started, use_cache=True, replace=True)


def launched_rank() -> int:
    """The rank of this process, if torchrun or srun has started it as one of several, else 0."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    return int(os.environ.get("SLURM_PROCID", "0"))


def _started(pattern: str) -> str:
    """A name for the run that starts now, the same in all its processes.

    As a rule it is the time. The ranks that torchrun starts, on any number of machines, agree on the time of the first
    one. Under srun it is the number of job and step, which a job that is queued again keeps.

    Args:
        pattern: As for `strftime`.
    """
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in _SHELLS:
        return f"slurm-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}"
    now = datetime.now().strftime(pattern)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return now
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # The store that torchrun keeps for its ranks: the first name that is set stays.
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(minutes=5))
    # One key per run of this process, because the store outlives them: the second would get the name of the first.
    agreed: str = store.compare_set(f"compseg/started/{next(_RUNS)}", "", now).decode()
    return agreed


def _help(name: str, doc: str, arguments: Sequence[str]) -> str:
    """The page of `--help`. Hydra's own lists every group of the folder each time, which takes two seconds here."""
    overrides, nodes = asked(arguments)
    return page(_file_of(name), doc, compose(name, overrides, with_hydra=True), nodes)


def _print_to_reader(page: str) -> None:
    """Print to somebody who may have seen enough (`| head`)."""
    try:
        print(page, flush=True)
    except BrokenPipeError:
        _takes_output()
        raise SystemExit(128 + signal.SIGPIPE) from None


def _file_of(name: str) -> Path:
    return conf_dir() / f"{name}.yaml"


@contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    """End the process with one line on stderr if the error is the user's, or a signal asked for the end."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print itself
    try:
        yield
        sys.stdout.flush()  # or Python would find out at its very end, and say so in lines of its own
    except KeyboardInterrupt:
        message, code = f"interrupted; {_same_command()}", 128 + signal.SIGINT
    except BrokenPipeError:
        message, code = "its output was closed before all was printed; files are whole", 128 + signal.SIGPIPE
    except Stopped as stopped:
        message, code = str(stopped), stopped.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and not _takes_output("\n"):
            error.filename = "standard output"
        line = explain(error, groups_of(_file_of(name)), name)
        if line is None:
            raise
        if os.environ.get("COMPSEG_DEBUG") == "1":
            traceback.print_exc()
        message, code = line, 1
    else:
        return
    _takes_output()
    if code == 1:
        _remove_unused_folder()
    with suppress(OSError):  # stderr may be closed as well
        print(f"compseg {name}{_speaker()}: {message}", file=sys.stderr)
    raise SystemExit(code)


def _same_command() -> str:
    """What goes on where an interrupted command was."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return f"the same command with hydra.sweep.dir={HydraConfig.get().sweep.dir} continues it"
    return "run the same command again"


def _remove_unused_folder() -> None:
    """Remove the folder of a run that has failed before it wrote more than what Hydra writes."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.RUN:
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if ".hydra" in names and all(name in (".hydra", ".run.lock") or name.endswith(".log") for name in names):
        shutil.rmtree(folder, ignore_errors=True)
        if not any(word.startswith("hydra.run.dir=") for word in HydraConfig.get().overrides.hydra):
            with suppress(OSError):  # outputs/ holds other runs
                folder.parent.rmdir()


def _takes_output(more: str = "") -> bool:
    """Whether standard output takes what was printed, and more; what a closed pipe or a full device refuses is lost."""
    try:
        print(more, end="", flush=True)
    except OSError:
        # Python would try again at its end, and print lines of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _speaker() -> str:
    """Which rank and which job of a sweep has the error; empty where there is one of each."""
    number = launched_rank() or int(os.environ.get("LOCAL_RANK", "0"))  # the latter from Lightning's own launcher
    words = [f"rank {number}"] if number else []
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        words += list(HydraConfig.get().overrides.task)
    return f" [{' '.join(words)}]" if words else ""
