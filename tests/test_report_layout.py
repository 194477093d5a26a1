"""The order of a report's parts, what is folded up, and that no page is wider than a phone."""

import io
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest
from fake_reports import EMPTY_TAGS, claims, report_folder, write
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    return report_folder(tmp_path)


def headings(html):
    """(tag, text) of every heading of the second rank, and of every block that is folded up."""
    return re.findall(r"<h2[^>]*>(.*?)</h2>", html)


def test_figures_come_first_then_claims_then_arithmetic_then_what_has_no_runs(folder):
    html, text = write(folder)
    order = ["Figures", "Claims", "Arithmetic of the configuration", "Claims without runs", "Tables"]
    order += ["How verdicts are reached", "Runs"]
    assert headings(html) == order
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == order


def test_arithmetic_has_a_table_of_its_own_and_is_not_counted(folder):
    html, text = write(folder)
    for start, end, form in (('id="claims"', 'id="arithmetic"', html), ("## Claims\n", "## Arithmetic", text)):
        claims_part, rest = form.split(start)[1].split(end)
        assert "Saves." not in claims_part
        assert "Saves." in rest
        assert "20.00 %" in rest.split("Claims without runs")[0]
    strip = re.search(r'<ul class="strip">(.*?)</ul>', html, re.DOTALL)[1]
    assert re.findall(r"<b>(\d)</b>", strip) == ["1", "0", "0", "0", "0"]


def test_claims_without_runs_are_folded_up(folder):
    every = replace(claims()[0], id="per", per={"etf.k": [1, 2]})
    html, text = write(folder, [*claims(), every])
    for form in (html, text):
        assert "<details open" not in form
        folded = re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", form, re.DOTALL)
        shown = re.sub(r"<details>.*?</details>", "", form, flags=re.DOTALL)
        *judged, (absent, inside) = folded
        assert [title for title, _ in judged] == ["How it was judged", "How it was judged; 1 setting without runs"]
        assert absent == "1 claim"
        assert "Absent." in inside
        assert "adaptive" in inside
        assert "Absent." not in shown
        assert "etf.k=1" in shown.replace("\\", "")
        assert "etf.k=2" not in shown.replace("\\", "")


def test_a_claim_whose_runs_diverged_is_not_without_runs(folder):
    for run in (folder / "runs").glob("exp/last_k-*"):
        (run / "DONE").unlink()
        with (run / "events.jsonl").open("a") as file:
            file.write('{"event": "diverged"}\n')
    html, _ = write(folder, claims()[:1])
    assert headings(html)[1:3] == ["Claims", "Tables"]
    assert "training diverged with seed 0, 1, 2" in re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)


def test_a_ledger_without_any_run_says_so(folder):
    html, text = write(folder, claims()[2:])
    assert "No claim has runs." in html
    assert "No claim has runs." in text
    assert headings(html)[:3] == ["Figures", "Claims", "Claims without runs"]


class Boxes(HTMLParser):
    """Notes of every table and picture of a figure whether an ancestor scrolls by itself."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        wide = tag == "table" or (tag == "img" and "min-width" in attributes.get("style", ""))
        if wide:
            self.found.append(any(names == "box" for names in self.open))
        if tag not in EMPTY_TAGS:
            self.open.append(attributes.get("class"))

    def handle_endtag(self, tag):
        self.open.pop()


def test_what_may_be_wider_than_a_phone_scrolls_by_itself(folder):
    html, _ = write(folder)
    found = Boxes(html).found
    assert len(found) == 6  # a figure; claims at a glance and one by one, arithmetic, two tables of the folder
    assert all(found)
    assert re.search(r"\.box \{[^}]*overflow-x: auto", html)
    assert not all(Boxes(html.replace('<div class="box">', "<div>")).found)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def scroll_width(html, width, tmp_path):
    """How wide a page wants to be in a window of `width` pixels, as a real browser lays it out."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<meta charset="utf-8"><iframe id="page" style="border: 0; width: {width}px; height: 800px" '
        f'srcdoc="{escape(html)}"></iframe><p id="said"></p><script>page.onload = () => {{ said.textContent = '
        '"scrolls " + page.contentDocument.scrollingElement.scrollWidth; }</script>',
        encoding="utf-8",
    )
    words = [
        "--headless",
        "--no-sandbox",
        "--hide-scrollbars",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run([BROWSER, *words, profile, frame.as_uri()], capture_output=True, text=True, timeout=120)
    return int(re.search(r"scrolls (\d+)", done.stdout)[1])


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_real_browser_never_scrolls_the_page_sideways_on_a_phone(folder):
    wide = io.BytesIO()
    Image.new("RGB", (2400, 800)).save(wide, "png", dpi=(200, 200))
    (folder / "figures" / "figure1_wide.png").write_bytes(wide.getvalue())
    (folder / "tables" / "wide.csv").write_text(",".join(f"a_long_name_of_a_column_{i}" for i in range(20)) + "\n")
    long = replace(claims("A claim. " * 30)[0], source="s" * 200, id="a" * 90)
    html, _ = write(folder, [*claims(), long])
    html = html.replace("<details>", "<details open>")
    assert scroll_width(html, 390, folder) == 390
    assert scroll_width(html, 1280, folder) == 1280
    broken = html.replace("overflow-x: auto;", "")
    assert scroll_width(broken, 390, folder) > 390
