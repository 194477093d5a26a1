"""The report: one page that needs nothing else, the same as Markdown, equal bytes, nothing unescaped."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest
from fake_runs import BASELINE, edit, last, write_run
from PIL import Image
from scipy import stats

from nclab.analysis.claims import judge
from nclab.analysis.effects import MARKERS, decisive, draw_effects
from nclab.analysis.gallery import MOST_ROWS, find_pictures, find_tables
from nclab.analysis.interval import estimate
from nclab.analysis.judgement import Judgement
from nclab.analysis.ledger import Claim
from nclab.analysis.report import DETAILS, make_report, write_report
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.analysis.sections import SIGNS, section
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.verdict import FAILS, HOLDS, KINDS, NOT_ENOUGH, VERDICTS

EVIL = '<script>alert("x")</script> | a & b'
CAPTIONS = {"figure1": "Figure 1: an MLP."}
EMPTY_TAGS = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects tags with their attributes and text; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def claims(text="A text."):
    accuracy, share = STATISTICS["test_accuracy"], STATISTICS["saved_share"]
    etf, none = {"etf.name": "last_k"}, {"etf.name": "none"}
    return [
        Claim(
            "first",
            text,
            "paper, Figure 1",
            accuracy,
            "not_lower",
            etf,
            none,
            0.5,
            commands=("nclab-paper run simplex_etf --part figure1",),
        ),
        Claim("second", "Saves.", "paper", share, "at_least", etf, threshold=90.0, why=text, deterministic=True),
        Claim("third", "Absent.", "control, ours", accuracy, "higher", {"etf.name": "adaptive"}, none, 0.5),
    ]


@pytest.fixture
def folder(tmp_path):
    """Three seeds of baseline and last 1 ETF with provenance, one diverged, one unfinished; figures and tables."""
    for seed in range(3):
        for etf, shift in ((BASELINE, 0.0), (last(1), 0.001 * seed)):
            run = write_run(tmp_path / "runs", etf, seed)
            summary = json.loads((run / "summary.json").read_text())
            summary["final"]["test"]["accuracy"] = 0.9 + shift
            summary["hardware"] = {"processor": "AMD <EPYC>", "cores": 2, "device": "cpu"}
            summary["hardware"] |= {"gpu": "NVIDIA H100"} if seed == 2 else {}
            summary |= {"versions": {"torch": "2.15", "numpy": "2.4"}, "commit": "0123456789abcdef-dirty"}
            summary |= {"parameters_learnable": 800, "parameters_total": 1000}
            (run / "summary.json").write_text(json.dumps(summary))
            with (run / "events.jsonl").open("a") as file:
                file.write(json.dumps({"event": "done", "time": 1795255200.0 - 86400 * seed}) + "\n")
    (write_run(tmp_path / "runs", BASELINE, 8, done=False) / "events.jsonl").write_text('{"event": "diverged"}\n')
    write_run(tmp_path / "runs", BASELINE, 9, done=False)
    figures = tmp_path / "figures"
    figures.mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (3, 2)).save(picture, "png")
    (figures / "figure1_digits.png").write_bytes(picture.getvalue())
    (figures / "figure1_digits.csv").write_text("epoch,mean\n1,0.5\n")
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "summary.md").write_text("Words.\n\n| policy | acc |\n| --- | ---: |\n| a \\| b | <1> |\n")
    (tables / "summary.csv").write_text("policy,acc\nx,1\n")
    (tables / "long.csv").write_text("i,x\n" + "".join(f"{i},0.333333333333\n" for i in range(100)))
    return tmp_path


def write(folder, ledger=None, out="report"):
    runs = load_runs([folder / "runs"], finished_only=False)
    report = make_report(
        judge(ledger or claims(), runs), runs, folder / "figures", folder / "tables", captions=CAPTIONS
    )
    page, text, _ = write_report(report, folder / out)
    return page.read_text(), text.read_text()


def test_the_page_needs_nothing_but_itself(folder):
    html, _ = write(folder)
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "base"}
    sources = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "srcset")]
    assert len(sources) == 2  # a figure, and a claim with numbers that training decides
    for source in sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert targets == {f"#{name}" for name in ids}
    assert not re.search(r"url\(|@import|https?:", html)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


@pytest.mark.fast
def test_the_page_says_all_that_was_found(folder):
    text = " ".join(Page(write(folder)[0]).text.split())
    for part in (
        *("newest run 2026-11-21", "6 finished, 1 diverged, 1 unfinished", "digits (6)"),
        *("AMD <EPYC>, 2 cores (4); NVIDIA H100 (2)", "torch 2.15, numpy 2.4 (6)", "0123456789-dirty (6)"),
        *("1 ✔ holds ; beside them arithmetic of the configuration : 1 fails; 1 without runs", "0 ✘ fails"),
        *(
            "non-inferiority, margin 0.5 points",
            "at least 90 %",
            "nclab-paper run simplex_etf --part figure1",
            "treatment etf.name=last_k",
        ),
        *("90.10 ± 0.10", "90.00 ± 0.00", "+0.10 [-0.15, +0.35] points", "1.00", "3 (0, 1, 2)"),
        *("20.00 %", "the interval lies above -0.50", "no finished run with etf.name=adaptive"),
        *(
            "figure1_digits.png , its numbers in figure1_digits.csv",
            "a | b <1>",
            "0.333333",
            "the first 60 of 100 rows",
        ),
        *("an interval over training seeds", "nothing is said about other test images"),
        *(f"Drawn from the runs of {folder / 'figures'} ,", f"Of {folder / 'tables'} , likewise"),
    ):
        assert part in text, part
    assert "Words" not in text
    assert "Each one-sided decision errs" not in text


def test_markdown_says_the_same_and_its_links_lead_to_files(folder):
    _, text = write(folder)
    links = re.findall(r"!\[.*\]\((.*)\)", text)
    assert links == ["figures/figure1_digits.png", "effects/first.png"]
    for link in links:
        Image.open(folder / "report" / link).verify()
    row = "| first | digits, 20 epochs | ✔ holds (3 seeds, no number stated) | also with Holm |"
    assert f"{row} +0.10 [-0.15, +0.35] points | 3 (0, 1, 2) |" in text
    assert "**1 holds**; beside them arithmetic of the configuration: 1 fails; 1 without runs" in text
    assert r"| a \| b | &lt;1&gt; |" in text
    assert "an interval over training" in text
    lines = text.splitlines()
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("|---"):  # a table starts after an empty line, and all its rows are as long as its head
            columns = len(re.findall(r"(?<!\\)\|", before))
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", after)) == columns
            assert lines[lines.index(before) - 1] == ""
    assert not re.search(r"\n\n\n\n", text)


def test_a_claim_about_every_seed_shows_least_and_greatest(folder):
    for run in (folder / "runs").glob("exp/last_k-s2-*"):
        edit(run, parameters_learnable=700)
    every = replace(claims()[1], kind="every_seed_at_least", threshold=25.0, deterministic=False)
    html, text = write(folder, [every])
    row = "| digits, 20 epochs | ? not enough runs (3 seeds, no number stated) | – | 20.00 to 30.00 % | 3 (0, 1, 2) |"
    assert f"{row} 1 of 3 seeds at least 25.00" in text
    assert "| setting | verdict | with Holm | least to greatest | seeds | reason |" in text
    assert "every seed at least 25 %" in html
    assert "<th>least to greatest</th>" in html


def test_a_broken_run_does_not_stop_the_report(folder):
    next((folder / "runs").glob("exp/last_k-s2-*/summary.json")).write_text("{")
    next((folder / "runs").glob("exp/none-s2-*/events.jsonl")).unlink()
    html, text = write(folder)
    assert "summary.json: not JSON" in html
    assert "| 2 (0, 1) |" in text
    assert "not recorded (1)" in html


def test_equal_runs_give_equal_bytes(folder):
    write(folder, out="one")
    write(folder, out="two")
    files = sorted(path.relative_to(folder / "one") for path in (folder / "one").rglob("*") if path.is_file())
    assert len(files) == 6
    for file in files:
        assert (folder / "one" / file).read_bytes() == (folder / "two" / file).read_bytes()


def test_everything_is_escaped(folder):
    (folder / "tables" / "evil.md").write_text(f"| {EVIL.split(' |')[0]} | b |\n|---|---|\n| <img src=x> | `c` |\n")
    (folder / "figures" / "<b>.png").write_bytes((folder / "figures" / "figure1_digits.png").read_bytes())
    html, text = write(folder, claims(EVIL))
    page = Page(html)
    assert EVIL in page.text
    assert "<img src=x>" in page.text
    assert not {"script", "b"} & {tag for tag, attributes in page.tags if attributes}
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in text
    assert "<img" not in text
    assert "(figures/%3Cb%3E.png)" in text


def test_a_report_without_figures_or_provenance(tmp_path):
    write_run(tmp_path, last(1))
    runs = load_runs([tmp_path])
    page, text, _ = write_report(make_report(judge(claims(), runs), runs), tmp_path / "out")
    html = page.read_text()
    assert "not recorded (1)" in html
    assert 'id="figures"' not in html
    assert "## Tables" not in text.read_text()
    Page(html)


# Layout


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


def test_seeds_margins_holm_and_what_is_provisional_stand_beside_the_verdict(folder):
    stated = replace(claims()[0], margin=None, seeds=3)
    html, text = write(folder, [stated, replace(stated, id="other", seeds=5)])
    row = (
        r"| digits, 20 epochs | ✔ holds | also with Holm | 90.10 ± 0.10 | 90.00 ± 0.00 | +0.10 [-0.15, +0.35] points |"
    )
    assert row in text
    assert "✔ holds (3 of 5 seeds)" in text
    assert "provisional: 3 of 5 seeds" in html
    assert "margin 0.95 points: the binomial standard error of 90 % on 1,000 images" in html


def test_a_verdict_that_does_not_stand_with_holm_says_so():
    one = replace(judgement(HOLDS, [0.1, 0.2, 0.3]), adjusted=NOT_ENOUGH, p_adjusted=0.04)
    assert section([one]).rows[0].holm == "not with Holm"
    assert section([replace(one, adjusted=HOLDS, p_adjusted=0.01)]).rows[0].holm == "also with Holm"
    assert section([judgement(HOLDS, [0.1, 0.2, 0.3])]).rows[0].holm == ""


@pytest.mark.parametrize(
    ("seeds", "said"), [((0, 1, 2), "3 (0, 1, 2)"), (range(10), "10 (0–9)"), ((9, 1, 2, 3, 4, 7), "6 (1–4, 7, 9)")]
)
def test_seeds_in_a_row_are_named_by_their_ends(seeds, said):
    one = replace(judgement(HOLDS, [0.1] * len(seeds)), seeds=tuple(seeds))
    assert section([one]).rows[0].seeds == said


def test_details_hold_the_statistics_behind_each_verdict(folder):
    write(folder, [replace(claims()[0], family="accuracy", seeds=3), *claims()[1:]])
    rows, verdicts = (
        list(csv.DictReader((folder / "report" / name).read_text().splitlines()))
        for name in ("details.csv", "verdicts.csv")
    )
    assert [*verdicts[0]] == ["claim", "setting", "verdict", "effect", "low", "high", "seeds"]
    assert [*rows[0]] == list(DETAILS)
    for name in ("claim", "setting", "verdict"):
        assert [row[name] for row in rows] == [row[name] for row in verdicts]
    first, second, third = rows
    assert (first["family"], first["holm"], first["margin"], first["provisional"]) == ("accuracy", "holds", "0.5", "")
    sd, se, df = (float(first[name]) for name in ("sd", "standard_error", "degrees_of_freedom"))
    assert (sd, se, df) == pytest.approx((0.1, 0.1 / 3**0.5, 2))
    half = stats.t.ppf(0.975, df) * se
    assert float(verdicts[0]["high"]) == pytest.approx(float(verdicts[0]["effect"]) + half)
    assert (second["arithmetic"], second["p_holm"]) == ("yes", "")
    assert (third["arithmetic"], third["sd"], third["margin"]) == ("no", "", "")


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


# Pictures of effects


def judgement(verdict, values, kind="not_lower"):
    claim = Claim("c", "t", "s", STATISTICS["test_accuracy"], kind, {}, {} if KINDS[kind].paired else None, 0.5, 1.0)
    return Judgement(claim, {"dataset.name": "mnist", "epochs": 30}, verdict, "", estimate(values))


def test_verdicts_differ_in_shape_and_sign():
    assert set(MARKERS) == set(SIGNS) == set(VERDICTS)
    shapes = {(look["marker"], look.get("markerfacecolor")) for look in MARKERS.values()}
    assert len(shapes) == len(set(SIGNS.values())) == len(VERDICTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_every_kind(kind):
    many = [judgement(HOLDS, [0.1, 0.2, 0.3], kind), judgement(NOT_ENOUGH, [-9.0, 9.0], kind)]
    many += [judgement(FAILS, [-1.0], kind), judgement(NOT_ENOUGH, [1.0, 1.0], kind)]  # without an interval
    data = draw_effects(many[0].claim, many)
    assert data == draw_effects(many[0].claim, many)
    assert Image.open(io.BytesIO(data)).size[1] > 400
    assert decisive(many[0].claim, 0.5) == sorted(decisive(many[0].claim, 0.5))


def test_no_numbers_no_picture():
    one = judgement(HOLDS, [0.1, 0.2])
    assert draw_effects(one.claim, [Judgement(one.claim, {}, NOT_ENOUGH, "none")]) is None


# Figures and tables found in a folder


def test_what_is_found(folder):
    (picture,) = find_pictures(folder / "figures", CAPTIONS)
    assert picture.caption == "Figure 1: an MLP."
    assert picture.numbers == "figure1_digits.csv"
    long, summary = find_tables(folder / "tables")
    assert (len(long.rows), long.rows[2]) == (MOST_ROWS, ["2", "0.333333"])
    assert (summary.header, summary.rows, summary.note) == (["policy", "acc"], [["a | b", "<1>"]], "")


def test_the_longest_start_of_a_name_says_the_caption(folder):
    add_picture(folder, "depth_rn_mnist", "depth_rn_blocks_mnist", "own_picture", "table")
    captions = {"depth_rn": "Against depth.", "depth_rn_blocks": "Along the depth.", "table": ""}
    found = {picture.path.stem: picture.caption for picture in find_pictures(folder / "figures", captions)}
    assert found == {
        "depth_rn_mnist": "Against depth.",
        "depth_rn_blocks_mnist": "Along the depth.",
        "figure1_digits": "figure1 digits",
        "own_picture": "own picture",
        "table": "table",
    }


def add_picture(folder, *names):
    for name in names:
        (folder / "figures" / f"{name}.png").write_bytes((folder / "figures" / "figure1_digits.png").read_bytes())


@pytest.mark.parametrize(("dots", "width"), [(200, 600), (100, 1200), (None, 1000)])
def test_a_picture_is_as_wide_as_in_print(tmp_path, dots, width):
    Image.new("RGB", (1000, 10)).save(tmp_path / "a.png", **({"dpi": (dots, dots)} if dots else {}))
    (picture,) = find_pictures(tmp_path)
    assert picture.width == width
    assert picture.least == 0.75 * width


def test_an_animation_is_a_picture(folder):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "figures" / "figure1_moves.gif", save_all=True, append_images=frames[1:], duration=100)
    html, text = write(folder)
    data = re.search(r'src="data:image/gif;base64,([^"]+)"', html)[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).n_frames == 2
    assert "(figures/figure1_moves.gif)" in text
    assert (folder / "report" / "figures" / "figure1_moves.gif").is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gif", b"\x89PNG", r"a\.gif: not a GIF picture \(4 bytes\)"),
        ("a.png", b"", r"a\.png: not a PNG picture \(0 bytes\)"),
        ("a.png", b"GIF89a", r"not a PNG picture \(6 bytes\)"),
        ("a.md", b"text", r"a\.md: no Markdown table in it"),
        ("a.md", b"| a | b |\n|---|---|\n| 1 |\n", "expected rows of 2 cells, got 1: 1"),
        ("a.csv", b"", r"a\.csv: empty"),
        ("a.csv", b"a,b\n1,2,3\n", "expected rows of 2 cells, got 3"),
        ("a.csv", b"\xff\xfe", "can't decode"),
    ],
)
def test_a_broken_figure_or_table_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AnalysisError, match=message) as error:
        find_pictures(tmp_path), find_tables(tmp_path)
    assert "\n" not in str(error.value)
