"""Makes a page of the notebook while the documentation is built: a hook of MkDocs, named in mkdocs.yml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH, NOTEBOOK = "tutorial.md", "tutorial.ipynb"
NOTE = f"This page is a notebook to run and to change: [{NOTEBOOK}]({NOTEBOOK}).\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the page."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PATH, content=tutorial_page(Path(config["docs_dir"], NOTEBOOK))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Browsers show no notebook: links of other pages lead to the page of it."""
    return markdown if page.file.src_uri == PATH else markdown.replace(f"({NOTEBOOK})", f"({PATH})")


def tutorial_page(notebook: Path) -> str:
    """The page, in Markdown."""
    title, *cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join([_shown(title), NOTE, *map(_shown, cells)])


def _shown(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    return f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
