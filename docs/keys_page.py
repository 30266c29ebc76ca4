"""Makes the page of all keys while the documentation is built: a hook of MkDocs, named in mkdocs.yml."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from compseg.__main__ import VERBS
from compseg.config import compose, conf_dir
from compseg.config.keys import Key, groups_of, keys_of, meanings, options_of, package_of, title_of

PATH = "reference/keys.md"
LONGEST = 80  # value in signs; all of it stands in conf/
BEGIN = """# Every key

What `python -m compseg.VERB --help` shows, at once. A key is given as `key=value`, an option of a group as
`group=option`. The keys of a group are those of the option that is chosen.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the page."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PATH, content=keys_page()))
    return files


def keys_page() -> str:
    """The page, in Markdown."""
    groups = [group for verb in VERBS for group in groups_of(_file(verb))]
    return "\n".join([BEGIN, *map(_verb, VERBS), "## Options of the groups\n", *map(_group, dict.fromkeys(groups))])


def _file(verb: str) -> Path:
    return conf_dir() / f"{verb}.yaml"


def _verb(verb: str) -> str:
    module = import_module(f"compseg.{verb}")
    if hasattr(module, "__path__"):  # a package, as `report`
        module = import_module(f"compseg.{verb}.__main__")
    file, doc = _file(verb), inspect.getdoc(module.main) or ""
    cfg = compose(verb, with_hydra=True)
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    examples = [line.strip() for line in doc.splitlines() if line.strip().startswith("python -m")]
    groups = [f"| [`{group}`](#{_anchor(group)}) | {_meaning(said)} |" for group, said in groups_of(file).items()]
    parts = [f"## compseg.{verb}\n", f"{doc.splitlines()[0]}\n", "```", *examples, "```\n"]
    parts += ["| group | meaning |", "|---|---|", *groups, ""] if groups else []
    return "\n".join([*parts, _table(keys_of(own, meanings(file, cfg.hydra.runtime.choices)))])


def _group(group: str) -> str:
    """The options of a group, and the keys that some of them explain."""
    options = options_of(conf_dir(), group)
    rows = [f"| `{option}` | {_meaning(title_of(file))} |" for option, file in options.items()]
    keys: dict[tuple[str, str], Key] = {}  # a name may mean something else in another option
    for key in (key for option in options for key in option_keys(group, option) if key.meaning):
        keys.setdefault((key.name, key.meaning), key)
    parts = [f"### Options of `{group}` {{ #{_anchor(group)} }}\n", "| option | meaning |", "|---|---|", *rows, ""]
    return "\n".join([*parts, _table(list(keys.values()))] if keys else parts)


def option_keys(group: str, option: str) -> list[Key]:
    """The keys of an option as a user gives them; without a meaning where it sets what another file explains."""
    file = conf_dir() / group / f"{option}.yaml"
    node = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    node.pop("defaults", None)
    for name in reversed(package_of(file, group.replace("/", ".")).split(".")):
        node = {name: node} if name else node
    return keys_of(OmegaConf.create(node), meanings(_verb_of(group), {group: option}))


@cache
def _verb_of(group: str) -> Path:
    return next(file for file in map(_file, VERBS) if group in groups_of(file))


def _table(keys: list[Key]) -> str:
    rows = [f"| `{key.name}` | `{_cell(_short(key.value))}` | {_meaning(key.meaning)} |" for key in keys]
    return "\n".join(["| key | value | meaning |", "|---|---|---|", *rows, ""])


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[:LONGEST]} ..."


def _anchor(group: str) -> str:
    return f"group-{group}"


def _cell(text: str) -> str:
    """Text as a table's cell takes it."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _meaning(text: str) -> str:
    """The same without code: a cell that ends with braces would end with attributes."""
    return _cell(text).replace("{", "&#123;")
