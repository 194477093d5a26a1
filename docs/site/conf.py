"""Sphinx settings of the site that `make docs` builds from docs/: no font, script or text comes from the internet."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from nclab import __version__

DOCS = Path(__file__).resolve().parents[1]
ROOMS = {  # of nclab, with what a page about them says first; the order is that of the menu
    "nclab.etf": "Fix layers",
    "nclab.metrics": "Measure",
    "nclab.data": "Datasets",
    "nclab.analysis": "Runs and figures",
    "nclab.run.trained": "Trained runs",
    "nclab.interfaces.batch": "A batch",
    "nclab.interfaces.targets": "Targets",
    "nclab.models.base": "Models",
    "nclab.training.objective": "Losses",
    "nclab.training.sampler": "Samplers",
    "nclab.training.phases": "Phases",
    "nclab.training.observer": "Observers",
    "nclab.runfolder.tracker": "Trackers",
}

project = "nclab"
author = copyright = "The nclab authors"
version = release = __version__.partition("+")[0]
html_title = f"nclab {version}"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
exclude_patterns = ["site"]
suppress_warnings = ["toc.not_included"]  # tables and reports in results/, which pages link to
nb_execution_mode = "off"  # tests/test_notebook.py runs it
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sphinx = False
templates_path: list[str] = []

default_role = "code"  # single backticks are code, as in Markdown
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autosummary_generate = False
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
add_module_names = False

SECTION = re.compile(r"^\| (to start|[a-z ]+) \| \|\n\|---\|---\|\n((?:\|.*\n?)+)", re.MULTILINE)
LINK = re.compile(r"\]\(([\w/]+)\.(?:md|ipynb)\)")
ANY_LINK = re.compile(r"(?<!!)\[((?:[^\[\]`]|`[^`]*`)+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")

ITEM = re.compile(r"[\w-]+(, [\w-]+)*( \([^)]*\))?: \S|(Returns|Raises)\b(?!:$)")


def api_page(room: str, title: str) -> str:
    """reStructuredText: what the room exports as a table, then all of it in full."""
    module = import_module(room)
    names = [name for name in getattr(module, "__all__", ()) if getattr(module, name).__doc__]
    table = "".join(f"   {name}\n" for name in names)
    head = f"{title}\n{'=' * len(title)}\n\n``{room}``\n\n.. currentmodule:: {room}\n\n"
    summary = f".. autosummary::\n   :nosignatures:\n\n{table}\n" if names else ""
    imported = "   :imported-members:\n" if names else ""
    return f"{head}{summary}.. automodule:: {room}\n{imported}"


def write_api(_app: object) -> None:
    """docs/api/, which git ignores; a page is written only where it changes, so that Sphinx builds only that anew."""
    folder = DOCS / "api"
    folder.mkdir(exist_ok=True)
    pages = {f"{room}.rst": api_page(room, title) for room, title in ROOMS.items()}
    for old in folder.glob("*.rst"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


def toctree(caption: str, pages: list[str]) -> str:
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption.capitalize()}\n\n" + "\n".join(pages) + "\n```\n"


def front_page(index: str) -> str:
    """README.md of the project. The tables of docs/README.md, the index on a code host, are the menu."""
    menus = [toctree(caption, LINK.findall(rows)) for caption, rows in SECTION.findall(index)]
    text = (DOCS.parent / "README.md").read_text().replace("](docs/", "](")
    return "".join([text, *menus, toctree("API", [f"api/{room}" for room in ROOMS])])


def within_site(link: re.Match[str], page: Path) -> str:
    """A link of a page, where a site has what it leads to: a folder's README.md for the folder, the front page for the
    project's README.md. Of a folder without one and of a page outside docs/ the words stay. Other files are copied."""
    words, name, anchor = link.groups(default="")
    target = (page.parent / name).resolve()
    if target == DOCS.parent / "README.md":
        name = Path("../" * (len(page.relative_to(DOCS).parts) - 1)) / "README.md"
    elif target.is_dir() and target.is_relative_to(DOCS) and (target / "README.md").exists():
        name = f"{name.rstrip('/')}/README.md"
    elif target.exists() and (target.is_dir() or (target.suffix == ".md" and not target.is_relative_to(DOCS))):
        return words
    return f"[{words}]({name}{anchor})"


def change_source(app: Any, name: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(name))
    if page.suffix == ".md":
        text = front_page(source[0]) if name == root_doc else source[0]
        source[0] = ANY_LINK.sub(lambda link: within_site(link, page), text)


def plain(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Docstrings are plain text: |x| is no substitution and * no emphasis. Lines `name: what it is`, and those that
    begin with Returns or Raises, become a list. Examples stay as they are."""
    item = False
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        pieces = line.split("`")
        pieces[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", piece) for piece in pieces[::2]]
        line = "`".join(pieces)
        if ITEM.match(line) and (item or not (i and lines[i - 1].strip())):
            item, line = True, f"- {line}"
        elif item and line.strip():
            line = f"  {line.strip()}"
        else:
            item = False
        lines[i] = line


def setup(app: Any) -> None:
    app.connect("builder-inited", write_api)
    app.connect("source-read", change_source)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
