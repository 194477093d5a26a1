"""What README.md and docs/ name is there: files, links, make targets, commands, keys, options; and the code of
docs/extending.md is that of the files it names."""

import ast
import re
import shlex
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from nclab.analysis.drawings import DRAWINGS
from nclab.config.command import arguments
from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.config.schema import GROUPS, ConfigError, MetricsSettings, RunConfig
from nclab.config.sweep import Planned, planned

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "papers").glob("*.md"))]
ALL = sorted({*PAGES, *(ROOT / "docs").rglob("*.md")})
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w./<-])(?:src|tests|conf|docs|scripts)/[\w./-]*\w")
YOURS = {"conf/experiment/mine.yaml", "conf/GROUP/NAME.yaml", "src/nclab/papers/WING/parts/NAME.py"}


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=relative)


def prose(text: str) -> str:
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands between single backticks, without what a line break put in."""
    return [" ".join(span.split()) for span in SPAN.findall(prose(text))]


def code(text: str) -> list[str]:
    """Lines of the blocks that are commands or configuration, those that end in a backslash joined to the next."""
    joined = (body.replace("\\\n", " ") for kind, body in FENCE.findall(text) if kind not in ("python", "text", "toml"))
    return [line.strip() for body in joined for line in body.splitlines()]


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(page: Path, text: str) -> list[str]:
    found = []
    for link in LINK.findall(prose(text)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            found.append(link)
    return found


@pytest.mark.parametrize("page", ALL, ids=relative)
def test_links_resolve(page):
    assert broken_links(page, page.read_text()) == []


def absent_paths(text: str) -> set[str]:
    named = set(PATH.findall(re.sub(r"\]\([^)]*\)", "]", text)))  # links have a test of their own
    return {path for path in named - YOURS if not (ROOT / path).exists()}


@each_page
def test_paths_exist(page):
    assert absent_paths(page.read_text()) == set()


def targets() -> set[str]:
    """Of the Makefile, wings and parts of the first paper included."""
    text = (ROOT / "Makefile").read_text()
    first = re.search(r"^FIRST := (.+)$", text, re.MULTILINE)[1].split()
    wings = [plan.parent.name for plan in (CONF / "paper").glob("*/plan.yaml")]
    return {*re.findall(r"^([\w-]+):(?!=)", text, re.MULTILINE), *first, *wings}


def absent_targets(text: str) -> set[str]:
    named = set()
    for line in [*code(text), *spans(text)]:
        if line.startswith("make "):
            words = shlex.split(re.split(r"\s#|;", line)[0])[1:]
            named.update({word.partition("=")[0] + "=" if "=" in word else word for word in words})
    variables = re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return named - targets() - {"WING"} - {f"{variable}=" for variable in variables}


@each_page
def test_make_targets_exist(page):
    assert absent_targets(page.read_text()) == set()


def test_parts_and_profiles_of_commands_are_in_a_plan():
    plans = [Plan(CONF, plan.parent.name) for plan in (CONF / "paper").glob("*/plan.yaml")]
    valid = {
        "PART": {part for plan in plans for part in plan.parts},
        "PROFILE": {profile for plan in plans for profile in plan.profiles},
    }
    seen = 0
    for page in PAGES:
        for key, values in re.findall(r"\b(PART|PROFILE)=([\w,]+)", page.read_text()):
            assert set(values.split(",")) <= valid[key], f"{key}={values} in {relative(page)}"
            seen += 1
    assert seen > 5


def absent_commands(text: str) -> set[str]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return set(re.findall(r"(?<![\w./-])nclab-[a-z]+\b", text)) - set(scripts)


@each_page
def test_console_commands_are_installed(page):
    assert absent_commands(page.read_text()) == set()


KEY = re.compile(r"(hydra\.launcher|metrics|" + "|".join(GROUPS) + r")\.(\w+)")


SUFFIXES = {"csv", "py"}  # metrics.csv and phases.py are files


def keys_of(group: str) -> set[str]:
    """Of all options of a group, of the metrics, or of the launchers."""
    if group == "metrics":
        return {field.name for field in fields(MetricsSettings)}
    if group == "hydra.launcher":
        files = [CONF / "hydra" / "launcher" / f"{name}.yaml" for name in ("local", "slurm")]
        return {key for file in files for key in yaml.safe_load(file.read_text())}
    registry = GROUPS[group]
    return {field.name for name in registry.names() for field in fields(registry[name].settings)}


def absent_keys(text: str) -> list[str]:
    words = [word for span in spans(text) for word in span.split()]
    found = [(word, KEY.fullmatch(word.partition("=")[0])) for word in words]
    return [word for word, key in found if key and key[2] not in keys_of(key[1]) | SUFFIXES]


@each_page
def test_keys_exist(page):
    assert absent_keys(page.read_text()) == []


def test_the_page_of_options_lists_every_option():
    text = (ROOT / "docs" / "options.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", text, re.MULTILINE)
    listed = {group: set(re.findall(r"\w+", options)) for group, options in rows}
    for group in GROUPS:
        ours = {name for name in GROUPS[group].names() if GROUPS[group][name].build.__module__.startswith("nclab.")}
        assert ours == listed[f"`{group}`"], group
    wings = {file.parent.name for file in (CONF / "experiment").glob("*/*.yaml")}
    assert {file.stem for file in (CONF / "experiment").rglob("*.yaml")} | wings == listed["`experiment`"]


def wings_without_a_row(text: str) -> set[str]:
    """Wings that no row of a table names with their page and their command."""
    wings = {plan.parent.name for plan in (CONF / "paper").glob("*/plan.yaml")}
    rows = re.findall(r"^\| \[(\w+)\]\(docs/papers/(\w+)\.md\) \|.*\| `make (\w+)` \|$", text, re.MULTILINE)
    return wings - {row[0] for row in rows if len(set(row)) == 1}


def test_the_readme_shows_every_wing_and_is_short():
    text = (ROOT / "README.md").read_text()
    assert wings_without_a_row(text) == set()
    assert len(text.splitlines()) <= 160  # one reads it in a minute; the rest is a page in docs/


def test_the_gallery_shows_a_figure_of_every_wing_with_its_command():
    sections = (ROOT / "docs" / "gallery.md").read_text().split("\n## ")[1:]
    shown = {}
    for section in sections:
        wing = re.match(r"\[(\w+)\]\(papers/\1\.md\): ", section)[1]
        (picture,) = re.findall(r"^!\[[^]]+\]\((results/[\w/]+\.png)\)$", section, re.MULTILINE)
        (command,) = re.findall(r"^`make (\w+) PROFILE=cpu PART=(\w+)`$", section, re.MULTILINE)
        assert command[0] == wing
        assert command[1] in Plan(CONF, wing).parts
        shown[wing] = picture
    assert set(shown) == {plan.parent.name for plan in (CONF / "paper").glob("*/plan.yaml")}


def unlisted(text: str) -> set[Path]:
    """Pages that the index does not link."""
    linked = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in LINK.findall(text)}
    return set(PAGES) - linked - {INDEX}


INDEX = ROOT / "docs" / "README.md"


def test_the_index_links_every_page():
    assert unlisted(INDEX.read_text()) == set()


def absent_drawings(text: str) -> set[str]:
    """Of nclab-draw NAME in code blocks and backticks."""
    named = {found[1] for line in [*code(text), *spans(text)] if (found := re.match(r"nclab-draw (\w+)", line))}
    return named - set(DRAWINGS.names()) - {"NAME"}


@each_page
def test_drawings_exist(page):
    assert absent_drawings(page.read_text()) == set()


def commands(text: str) -> Iterator[list[str]]:
    """The words after nclab-train, or after -m nclab.train, of every command in code blocks and backticks."""
    for line in [*code(text), *spans(text)]:
        found = re.match(r"(?:nclab-train|torchrun .*-m nclab\.train|\S*python -m nclab\.train)(?= |$)", line)
        if found and "..." not in line and "GROUP=" not in line and "FOLDER" not in line:
            yield shlex.split(
                line[found.end() :].replace("range(20)", "range(2)"), comments=True
            )  # composing takes time


@pytest.fixture
def extensions(own_registries, monkeypatch):
    """tests/extensions in the place of the user's folder."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "tests" / "extensions")])


def plan_of(words: list[str]) -> Planned | None:
    """What nclab-train would train; None where it only shows something. Raises as it does."""
    args = arguments(words)
    if args.help or args.hydra_help or args.shell_completion:
        return None
    args.multirun = True  # one run is a sweep of one
    return planned(args, CONF)


def compose_all(words: list[str]) -> None:
    """What nclab-train does with these words before it trains; raises as it does."""
    plan = plan_of(words)
    if plan is None:
        return
    jobs = [plan.search.job(values) for values in plan.search.corners()] if plan.search else plan.jobs
    assert all(isinstance(job.config, RunConfig) for job in jobs)
    assert jobs


@each_page
def test_commands_of_nclab_train_compose(page, extensions):
    for words in commands(page.read_text()):
        if "plugins=[my_module]" in words:  # the reader's own
            continue
        try:
            compose_all(words)
        except Exception as error:
            pytest.fail(f"nclab-train {shlex.join(words)}: {error}")


def test_enough_commands_were_seen():
    assert sum(len(list(commands(page.read_text()))) for page in PAGES) > 20


PAGE_OF_CODE = ROOT / "docs" / "extending.md"


def quoted(text: str) -> list[tuple[str, str, str]]:
    """(path, kind, code) of every Python and TOML block: the file that was named last above it."""
    found, path, kind, lines = [], None, None, []
    for line in text.splitlines():
        named = re.match(r"\[`([^`]+)`\]\(", line)
        if kind is not None and line == "```":
            if kind in ("python", "toml"):
                assert path is not None, f"no file is named above {lines[0]}"
                found.append((path, kind, "\n".join(lines)))
                path = None
            kind, lines = None, []
        elif kind is not None:
            lines.append(line)
        elif line.startswith("```"):
            kind = line[3:]
        elif named:
            path = named[1]
    return found


def absent(block: str, source: str) -> list[str]:
    """Lines of a block that the file does not hold in this order. Blank lines do not count, and ` ...` at the end of a
    line stands for a body."""
    held, missing = source.splitlines(), []
    for line in block.splitlines():
        line = line.removesuffix(" ...")
        if line.strip() and line in held:
            held = held[held.index(line) + 1 :]
        elif line.strip():
            missing.append(line)
    return missing


@pytest.mark.parametrize(("path", "kind", "block"), quoted(PAGE_OF_CODE.read_text()))
def test_code_of_the_page_on_extending_is_that_of_the_file(path, kind, block):
    assert absent(block, (ROOT / path).read_text()) == []
    if kind == "python":
        ast.parse(textwrap.dedent(block))


def test_what_is_not_there_is_seen():
    page = ROOT / "README.md"
    text = "[a](docs/nowhere.md) [b](docs/library.md#nowhere) [c](docs/library.md) [d](https://example.org)"
    assert broken_links(page, text) == ["docs/nowhere.md", "docs/library.md#nowhere"]
    assert absent_paths("`src/nclab/together.py`, src/nclab/train.py, docs/cluster.md.") == {"src/nclab/together.py"}
    assert absent_targets("```\nmake figure1 figures PROFILE=cpu TOGETHER=2  # drawn\n```\n") == {
        "figures",
        "TOGETHER=",
    }
    assert absent_commands("nclab-train and `nclab-figures`") == {"nclab-figures"}
    assert absent_drawings("```\nnclab-draw summary outputs\nnclab-draw sumary outputs\n```\n") == {"sumary"}
    assert "depth" not in wings_without_a_row("| [depth](docs/papers/depth.md) | why? | `make depth` |")
    assert "depth" in wings_without_a_row("| [depth](docs/papers/depth.md) | why? | `make regression` |")
    assert ROOT / "docs" / "cluster.md" in unlisted("[a](cluster.html) [b](metrics.md#x)")
    assert ROOT / "docs" / "metrics.md" not in unlisted("[a](cluster.html) [b](metrics.md#x)")
    text = "`etf.k=2`, `hydra.launcher.together=2`, `hydra.launcher.stack`, `metrics.suites`"
    assert absent_keys(text) == ["hydra.launcher.together=2", "metrics.suites"]
    assert absent("a\n    c ...\nb", "a\nb\n    c\n") == ["b"]
    with pytest.raises(ConfigError, match=r"unknown key 'etf\.kk' of etf=last_k; did you mean etf\.k"):
        compose_all(["etf=last_k", "etf.kk=1"])
    with pytest.raises(ConfigError, match="loss is chosen by its option"):
        compose_all(["loss.name=hinge"])
    with pytest.raises(AssertionError, match="no file is named above a = 1"):
        quoted("```python\na = 1\n```\n")
