"""Reports on runs that are made up: their folder, their claims, one judgement, and a page taken to pieces."""

import io
import json
from html.parser import HTMLParser

from fake_runs import BASELINE, last, write_run
from PIL import Image

from nclab.analysis.claims import judge
from nclab.analysis.interval import estimate
from nclab.analysis.judgement import Judgement
from nclab.analysis.ledger import Claim
from nclab.analysis.report import make_report, write_report
from nclab.analysis.runs import load_runs
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.verdict import KINDS

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
            seeds=3,
        ),
        Claim("second", "Saves.", "paper", share, "at_least", etf, threshold=90.0, why=text, deterministic=True),
        Claim("third", "Absent.", "control, ours", accuracy, "higher", {"etf.name": "adaptive"}, none, 0.5),
    ]


def report_folder(tmp_path):
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


def judgement(verdict, values, kind="not_lower"):
    claim = Claim("c", "t", "s", STATISTICS["test_accuracy"], kind, {}, {} if KINDS[kind].paired else None, 0.5, 1.0)
    return Judgement(claim, {"dataset.name": "mnist", "epochs": 30}, verdict, "", estimate(values))
