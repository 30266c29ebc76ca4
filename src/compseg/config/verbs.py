"""The decorator that makes a verb: a function of the configuration becomes a command whose complaints are one line."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from compseg.config.hints import explain
from compseg.config.run_dir import quiet_rank, rank, started
from compseg.config.schema import register_schemas
from compseg.config.targets import check_targets
from compseg.errors import Stopped

Task = Callable[[DictConfig], Any]

_GROUPS = """
== Groups: give group=option ==

%s
"""
_VALUES = """
== Values: give key=value ==

$CONFIG
--cfg job      show the configuration and do nothing
-m             one run for every combination of comma-separated values
COMPSEG_DEBUG=1 in the environment shows where an error came from."""


def conf_dir() -> Path:
    """The folder of configuration files: the one in the installed package, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration of a verb, for scripts and notebooks that call the rooms themselves.

    Args:
        name: The verb.
        overrides: What would stand on its command line, for example `["model=unet", "seed=1"]`.

    Returns:
        The configuration as the verb would get it; not yet checked by `check_targets`.
    """
    _register(name)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(name, list(overrides))


def verb(name: str, sweep_job: Task | None = None) -> Callable[[Task], Callable[..., Any]]:
    """Make a command of a function: `conf/NAME.yaml` is composed with the command line, checked and handed over.

    A fault of the user ends the command with one line on stderr and exit code 1 (an unknown flag with 2, an interrupt
    with 130, another signal that asks for the end with 128 and its number). Whatever else goes wrong is a fault of the
    program and keeps its traceback; `COMPSEG_DEBUG=1` keeps them all. Called with a configuration, the function runs as
    it is: its value is returned and its exceptions come through.

    Args:
        name: The verb, and the name of its file in `conf/`.
        sweep_job: Runs a job of a sweep (`-m`) in place of the function, with a configuration that is not yet checked.

    Returns:
        A decorator for a function of the composed configuration, whose return value is what a sweeper optimises.
    """

    def decorate(task: Task) -> Callable[..., Any]:
        @functools.wraps(task)
        def job(cfg: DictConfig) -> Any:
            if sweep_job and HydraConfig.get().mode == RunMode.MULTIRUN:
                return _plainly(name, lambda: sweep_job(cfg))
            # Faults are caught inside the job too, else Hydra announces a failed job with lines of its own.
            return _plainly(name, lambda: _check_and_run(task, cfg))

        @functools.wraps(task)
        def main(cfg: DictConfig | None = None) -> Any:
            if cfg is not None:
                return task(cfg)
            _register(name, inspect.getdoc(task) or "")
            sys.argv += quiet_rank(name)
            return _plainly(name, hydra.main(config_path=str(conf_dir()), config_name=name, version_base="1.3")(job))

        return main

    return decorate


def _check_and_run(task: Task, cfg: DictConfig) -> Any:
    check_targets(cfg)
    return task(cfg)


def _register(name: str, doc: str = "") -> None:
    """Make known the schemas, `${started:}`, and the page of `--help` that `override hydra/help: compseg` asks for."""
    register_schemas()
    OmegaConf.register_new_resolver("started", started, use_cache=True, replace=True)
    words = re.split(r"\n\n(?:Args|Returns|Raises):", doc)[0]
    choices = "\n".join(f"{group}: {', '.join(_options(group))}" for group in _groups(name))
    page = words + "\n" + (_GROUPS % choices if choices else "") + _VALUES
    ConfigStore.instance().store(group="hydra/help", name="compseg", node={"template": page})


def _groups(name: str) -> list[str]:
    """The config groups that a verb's own file chooses from; Hydra knows only those of all verbs."""
    defaults = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text())["defaults"]
    groups = [str(group) for entry in defaults if isinstance(entry, dict) for group in entry]
    return [group for group in groups if not group.startswith(("override ", "hydra"))]


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


def _plainly(name: str, call: Callable[[], Any]) -> Any:
    """Run `call`; end the process with one line on stderr if the user is at fault."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print itself
    try:
        return call()
    except KeyboardInterrupt:
        print(f"compseg {name}{_where()}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Stopped as stopped:
        print(f"compseg {name}{_where()}: {stopped}", file=sys.stderr)
        raise SystemExit(stopped.exit_code) from None
    except Exception as error:
        message = explain(error, _groups(name))
        if message is None:
            raise
        if os.environ.get("COMPSEG_DEBUG") == "1":
            traceback.print_exc()
        print(f"compseg {name}{_where()}: {message}", file=sys.stderr)
        raise SystemExit(1) from None


def _where() -> str:
    """Which rank and which job of a sweep speaks; empty where there is one of each."""
    number = rank() or int(os.environ.get("LOCAL_RANK", "0"))
    words = [f"rank {number}"] if number else []
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        words += list(HydraConfig.get().overrides.task)
    return f" [{' '.join(words)}]" if words else ""
