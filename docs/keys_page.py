"""Makes the page of all keys while the documentation is built: a hook of MkDocs, named in mkdocs.yml."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import yaml
from omegaconf import OmegaConf

from compseg.__main__ import VERBS
from compseg.config import compose, conf_dir
from compseg.config.keys import Key, groups_of, keys_of, meanings, options_of, title_of

PATH = "reference/keys.md"
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
    groups = [group for verb in VERBS for group in groups_of(conf_dir() / f"{verb}.yaml")]
    return "\n".join([BEGIN, *map(_verb, VERBS), "## Options of the groups\n", *map(_group, dict.fromkeys(groups))])


def _verb(verb: str) -> str:
    module = import_module(f"compseg.{verb}")
    if hasattr(module, "__path__"):  # a package, as `report`
        module = import_module(f"compseg.{verb}.__main__")
    file, doc = conf_dir() / f"{verb}.yaml", inspect.getdoc(module.main) or ""
    cfg = compose(verb, with_hydra=True)
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    examples = [line.strip() for line in doc.splitlines() if line.strip().startswith("python -m")]
    groups = [f"| [`{group}`](#{_anchor(group)}) | {_meaning(said)} |" for group, said in groups_of(file).items()]
    parts = [f"## compseg.{verb}\n", f"{doc.splitlines()[0]}\n", "```", *examples, "```\n"]
    parts += ["| group | meaning |", "|---|---|", *groups, ""] if groups else []
    return "\n".join([*parts, _table(keys_of(own, meanings(file, cfg.hydra.runtime.choices)))])


def _group(group: str) -> str:
    """The options of a group, and the keys that only some of them have."""
    verb = next(conf_dir() / f"{verb}.yaml" for verb in VERBS if group in groups_of(conf_dir() / f"{verb}.yaml"))
    options = options_of(conf_dir(), group)
    rows = [f"| `{option}` | {_meaning(title_of(file))} |" for option, file in options.items()]
    keys: dict[tuple[str, str], Key] = {}  # a name may mean something else in another option
    for option, file in options.items():
        node = OmegaConf.create(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
        said = meanings(verb, {group: option})
        for key in keys_of(node, {name.removeprefix(f"{group}."): words for name, words in said.items()}):
            if key.name and key.meaning and not key.name.startswith("defaults"):
                keys.setdefault((key.name, key.meaning), key)
    parts = [f"### Options of `{group}` {{ #{_anchor(group)} }}\n", "| option | meaning |", "|---|---|", *rows, ""]
    return "\n".join([*parts, _table(list(keys.values()))] if keys else parts)


def _table(keys: list[Key]) -> str:
    rows = [f"| `{key.name}` | `{_cell(key.value)}` | {_meaning(key.meaning)} |" for key in keys]
    return "\n".join(["| key | value | meaning |", "|---|---|---|", *rows, ""])


def _anchor(group: str) -> str:
    return f"group-{group}"


def _cell(text: str) -> str:
    """Text as a table's cell takes it."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _meaning(text: str) -> str:
    """The same without code: a cell that ends with braces would end with attributes."""
    return _cell(text).replace("{", "&#123;")
