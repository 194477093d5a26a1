"""The site of `make docs`: what docs/site/conf.py makes of the pages. The build itself, strict, is in .ci/run."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def conf():
    spec = importlib.util.spec_from_file_location("site_conf", DOCS / "site" / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_menu_has_every_page_of_the_index(conf):
    front = conf.front_page((DOCS / "README.md").read_text())
    menu = {line for block in re.findall(r"```\{toctree\}(.*?)```", front, re.DOTALL) for line in block.splitlines()}
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in [*DOCS.glob("*.md"), *DOCS.glob("papers/*.md")]}
    assert pages - menu == {"README"}
    assert {f"api/{room}" for room in conf.ROOMS} <= menu
    assert "A laboratory for **neural collapse**" in front
    assert "](docs/" not in front


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("data.md", "[a](../README.md)", "[a](README.md)"),
        ("papers/depth.md", "[a](../../README.md#b)", "[a](../README.md#b)"),
        ("papers/README.md", "[`e`](../results/evidence)", "[`e`](../results/evidence/README.md)"),
        ("data.md", "[`conf`](../conf/dataset)", "`conf`"),
        ("development.md", "[c](../CONTRIBUTING.md)", "c"),
        ("data.md", "[a](nowhere.md)", "[a](nowhere.md)"),  # which Sphinx then reports
        ("data.md", "[a](library.md#x)", "[a](library.md#x)"),
    ],
)
def test_links_lead_to_what_a_site_has(conf, page, link, expected):
    assert conf.ANY_LINK.sub(lambda found: conf.within_site(found, DOCS / page), link) == expected


def test_a_long_page_without_a_link_is_read_at_once(conf):
    assert conf.ANY_LINK.search("[" + "`a` b" * 5000) is None


def test_docstrings_keep_their_formulas_and_become_lists(conf):
    lines = ["|x| of `a * b`: 2 * |y|", "", "seed (N,): of", "    frames", "Returns: |z|", "", ">>> 2 * 3", "Args:"]
    conf.plain(None, "", "", None, None, lines)
    assert lines == [
        r"\|x\| of `a * b`: 2 \* \|y\|",
        "",
        "- seed (N,): of",
        "  frames",
        r"- Returns: \|z\|",
        "",
        ">>> 2 * 3",
        "Args:",
    ]


def test_an_api_page_names_all_exports(conf):
    import nclab.etf

    page = conf.api_page("nclab.etf", "Fix layers")
    assert ".. automodule:: nclab.etf" in page
    assert all(f"   {name}\n" in page for name in nclab.etf.__all__ if getattr(nclab.etf, name).__doc__)


def test_nothing_of_the_theme_comes_from_the_internet():
    for file in (DOCS / "site").rglob("*"):
        if file.suffix in {".css", ".py", ".html"}:
            assert not re.search(r"https?://(?!json)", file.read_text().replace("https?:", "")), file
