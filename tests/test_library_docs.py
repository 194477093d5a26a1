"""The code in docs/library.md and in the README's section on your own code runs, and prints what stands below it."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from nclab.run.execute import train

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str | None]]:
    """(code, what it must print, None if nothing is said) of every Python block."""
    found: list[tuple[str, str | None]] = []
    for kind, body in BLOCK.findall(text):
        if kind == "python":
            found.append((body, None))
        else:
            found[-1] = (found[-1][0], body)
    return found


def run(text: str, name: str) -> None:
    """Run all blocks in one namespace, in the current folder."""
    namespace: dict = {}
    for number, (code, expected) in enumerate(blocks(text), 1):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"{name}, block {number}", "exec"), namespace)  # noqa: S102 - our own documentation
        assert expected is None or out.getvalue() == expected, f"{name}, block {number} prints:\n{out.getvalue()}"


def test_the_page_of_the_library_runs(tmp_path, monkeypatch, tiny):
    """Beside the outputs of one run, which its last block reads."""
    pytest.importorskip("transformers")
    train(tiny("epochs=1", root=tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "library.md").read_text()
    assert len(blocks(text)) >= 9
    assert {"load_trained", "load_runs"} <= set(re.findall(r"\w+", blocks(text)[-1][0]))
    run(text, "docs/library.md")


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text()
    _, _, section = readme.partition("## In your own code\n")
    section = section.partition("\n## ")[0]
    assert {"convert", "AdaptiveETF", "measure_model", "simplex_etf"} <= set(re.findall(r"\w+", blocks(section)[0][0]))
    run(section, "README.md")


def test_a_block_that_prints_something_else_fails():
    with pytest.raises(AssertionError, match=r"page, block 1 prints:\s+2"):
        run("```python\nprint(1 + 1)\n```\n```text\n3\n```\n", "page")
