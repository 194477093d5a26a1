"""The report: one page that needs nothing else, the same as Markdown, equal bytes, nothing unescaped."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from fake_runs import BASELINE, edit, last, write_run
from PIL import Image

from nclab.analysis.claims import judge
from nclab.analysis.effects import MARKERS, decisive, draw_effects
from nclab.analysis.gallery import MOST_ROWS, find_pictures, find_tables
from nclab.analysis.interval import estimate
from nclab.analysis.judgement import Judgement
from nclab.analysis.ledger import Claim
from nclab.analysis.report import SIGNS, make_report, write_report
from nclab.analysis.runs import AnalysisError, load_runs
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
    assert len(sources) == 3  # two claims with numbers, one figure
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
        *("1 ✔ holds", "0 ✘ fails", "1 ? not enough runs"),
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
        *(f"Whatever pictures lie in {folder / 'figures'} ;", f"Whatever tables lie in {folder / 'tables'} ,"),
    ):
        assert part in text, part
    assert "Words" not in text
    assert "Each one-sided decision errs" not in text


def test_markdown_says_the_same_and_its_links_lead_to_files(folder):
    _, text = write(folder)
    links = re.findall(r"!\[.*\]\((.*)\)", text)
    assert links == ["effects/first.png", "effects/second.png", "figures/figure1_digits.png"]
    for link in links:
        Image.open(folder / "report" / link).verify()
    assert "| first | digits, 20 epochs | ✔ holds | +0.10 [-0.15, +0.35] points | 3 (0, 1, 2) |" in text
    assert "**1 holds, 0 fails, 0 smaller than the margin, 0 ceiling, 1 not enough runs**" in text
    assert r"| a \| b | &lt;1&gt; |" in text
    assert "an interval over training" in text
    assert text.count("Whatever") == 2
    lines = text.splitlines()
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("|---"):  # a table starts after an empty line, and all its rows are as long as its head
            columns = len(re.findall(r"(?<!\\)\|", before))
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", after)) == columns
            assert lines[lines.index(before) - 1] == ""


def test_a_claim_about_every_seed_shows_least_and_greatest(folder):
    for run in (folder / "runs").glob("exp/last_k-s2-*"):
        edit(run, parameters_learnable=700)
    every = replace(claims()[1], kind="every_seed_at_least", threshold=25.0, deterministic=False)
    html, text = write(folder, [every])
    row = "| digits, 20 epochs | ? not enough runs | 20.00 to 30.00 % | 3 (0, 1, 2) | 1 of 3 seeds at least 25.00"
    assert row in text
    assert "| setting | verdict | least to greatest | seeds | reason |" in text
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
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
