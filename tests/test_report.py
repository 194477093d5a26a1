"""The report: one page that needs nothing else, the same as Markdown, equal bytes, nothing unescaped."""

import base64
import csv
import io
import re
from dataclasses import replace

import pytest
from fake_reports import EVIL, Page, claims, judgement, report_folder, write
from fake_runs import edit, last, write_run
from PIL import Image
from scipy import stats

from nclab.analysis.claims import judge
from nclab.analysis.report import DETAILS, make_report, write_report
from nclab.analysis.runs import load_runs
from nclab.analysis.sections import section
from nclab.analysis.verdict import HOLDS, NOT_ENOUGH


@pytest.fixture
def folder(tmp_path):
    return report_folder(tmp_path)


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
    row = "| first | digits, 20 epochs | ✔ holds | also with Holm |"
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
    row = "| digits, 20 epochs | ✘ fails (3 seeds, no number stated) | – | 20.00 to 30.00 % | 3 (0, 1, 2) |"
    assert f"{row} 2 of 3 seeds miss it: not at least 25.00" in text
    assert "| setting | verdict | with Holm | least to greatest | seeds | reason |" in text
    assert "every seed at least 25 %" in html
    assert "<th>least to greatest</th>" in html


def test_cases_without_runs_share_one_line(folder):
    third = replace(claims()[2], per={"etf.threshold": [0.9, 0.95]})
    html, text = write(folder, [third])
    line = "no finished run with etf.name=adaptive, etf.threshold=0.9|0.95"
    assert html.count("no finished run") == 1
    assert line in html
    assert text.count("no finished run") == 1
    assert line.replace("|", "\\|") in text
    one_side = replace(claims()[0], baseline={"etf.name": "adaptive"}, per={"etf.k": [1, 2]})
    reasons = "no finished run with etf.name=adaptive in this setting; no finished run with etf.name=last_k, etf.k=2"
    assert reasons in write(folder, [one_side])[0]


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


def test_seeds_margins_holm_and_what_is_provisional_stand_beside_the_verdict(folder):
    stated = replace(claims()[0], margin=None, seeds=3)
    html, text = write(folder, [stated, replace(stated, id="other", seeds=5), replace(stated, id="more", seeds=10)])
    row = (
        r"| digits, 20 epochs | ✔ holds | also with Holm | 90.10 ± 0.10 | 90.00 ± 0.00 | +0.10 [-0.15, +0.35] points |"
    )
    assert row in text
    assert "✔ holds (3 of 5 seeds)" in text
    assert "provisional: 3 of 5 seeds" in html
    assert "\n**1 holds**; provisional, fewer seeds than stated: 2 holds\n" in text
    assert "<b>1 ✔ holds</b>; provisional, fewer seeds than stated:\n2 ✔ holds." in html
    strip = Page(re.search(r'<ul class="strip">.*?</ul>', html, re.DOTALL)[0]).text
    assert " ".join(strip.split()).startswith("1 ✔ holds and 2 provisional 0 ✘ fails 0 ▼")
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
