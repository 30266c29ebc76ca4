"""The decorator that makes a verb: a function of the composed configuration becomes a command that speaks in one line."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from compseg.config.hints import explain
from compseg.config.schema import register_schemas
from compseg.config.targets import check_targets

Task = Callable[[DictConfig], Any]


def conf_dir() -> Path:
    """The folder of configuration files: the one in the installed package, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def verb(name: str) -> Callable[[Task], Callable[..., Any]]:
    """Make a command of a function: `conf/NAME.yaml` is composed with the command line, checked and handed over.

    A fault of the user ends the command with one line on stderr and exit code 1, an interrupt with 130; whatever else goes wrong
    is a fault of the program and keeps its traceback. `COMPSEG_DEBUG=1` keeps every traceback. Called with a configuration
    instead of from the command line, the function runs as it is, and its return value and exceptions come through.

    Args:
        name: The verb, and the name of its file in `conf/`.

    Returns:
        A decorator for a function of the composed configuration. Its return value is what a Hydra sweeper minimises or maximises.
    """

    def decorate(task: Task) -> Callable[..., Any]:
        @functools.wraps(task)
        def checked(cfg: DictConfig) -> Any:
            # Faults are caught inside the job too: Hydra would announce a failed job with a line of its own.
            with_faults = functools.partial(_check_and_run, task, cfg)
            return _speak_plainly(name, with_faults)

        @functools.wraps(task)
        def main(cfg: DictConfig | None = None) -> Any:
            if cfg is not None:
                return task(cfg)
            _register(task)
            command = hydra.main(config_path=str(conf_dir()), config_name=name, version_base="1.3")(checked)
            return _speak_plainly(name, command)

        return main

    return decorate


def _check_and_run(task: Task, cfg: DictConfig) -> Any:
    check_targets(cfg)
    return task(cfg)


def _register(task: Task) -> None:
    register_schemas()
    summary = (task.__doc__ or "").strip()
    # `--help` opens with the verb's own words; conf/hydra/verb.yaml asks for this page.
    page = {
        "header": summary,
        "footer": "--cfg job shows the configuration, -m sweeps over comma-separated values, COMPSEG_DEBUG=1 shows tracebacks.",
        "template": _HELP,
    }
    ConfigStore.instance().store(group="hydra/help", name="compseg", node=page)


_HELP = """${hydra.help.header}

== Groups (group=option) ==
$APP_CONFIG_GROUPS

== Values (key=value) ==
$CONFIG

${hydra.help.footer}
"""


def _speak_plainly(name: str, call: Callable[[], Any]) -> Any:
    """Run `call`; end the process with one line on stderr if the user is at fault."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print itself
    try:
        return call()
    except KeyboardInterrupt:
        print(f"compseg {name}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        message = explain(error, conf_dir())
        if message is None:
            raise
        if os.environ.get("COMPSEG_DEBUG") == "1":
            traceback.print_exc()
        print(f"compseg {name}{_where()}: {message}", file=sys.stderr)
        raise SystemExit(1) from None


def _where() -> str:
    """Which rank and which job of a sweep speaks; empty where there is one of each."""
    rank = os.environ.get("LOCAL_RANK", "0")
    words = [] if rank == "0" else [f"rank {rank}"]
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        words += list(HydraConfig.get().overrides.task)
    return f" [{' '.join(words)}]" if words else ""
