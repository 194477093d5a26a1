"""Every verdict of docs/ is what an independent judge (recomputed.py) finds in the committed run folders.

docs/results/evidence/NAME.tar.xz is what `nclab-runs pack` wrote, NAME.verdicts.csv and NAME.details.csv what
`nclab-paper judge` made of it. NAME begins with the wing, whose claims they are: simplex_etf, simplex_etf-mnist.
"""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from fake_depth_runs import CE, RN1, T11, write_series
from fake_runs import ADAPTIVE, BASELINE, FFN, diverge, edit, last, vit, write_run
from recomputed import compare, differences
from recomputed_runs import Mismatch, read_archive
from recomputed_settings import read_claims
from recomputed_transfer import STATISTICS
from recomputed_verdicts import Case, judge

from nclab.config.place import CONF
from nclab.interfaces.effective_depth import effective_depth
from nclab.papers.judging import judge_wing
from nclab.papers.wings import find_wing, wing_names
from nclab.runs import main as runs_command

DOCS = Path(__file__).parents[1] / "docs"
EVIDENCE = DOCS / "results" / "evidence"
ARCHIVES = sorted(EVIDENCE.glob("*.tar.xz"))


def check(archive):
    """How many verdicts of an archive were recomputed; Mismatch where one is another."""
    name = archive.name.removesuffix(".tar.xz")
    wing = re.match(r"\w+", name)[0]
    cases = judge(read_claims(CONF / "paper" / wing / "claims.yaml"), read_archive(archive))
    texts = (archive.with_name(f"{name}.{of}.csv").read_text() for of in ("verdicts", "details"))
    return compare(cases, *texts)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_the_committed_verdicts_are_those_of_the_committed_runs(archive):
    assert check(archive) > 0


def test_whatever_lies_among_the_evidence_belongs_to_an_archive():
    names = {path.name.removesuffix(".tar.xz") for path in ARCHIVES}
    expected = {f"{name}.{ending}" for name in names for ending in ("tar.xz", "verdicts.csv", "details.csv")}
    assert {path.name for path in EVIDENCE.glob("*")} - {"README.md"} == expected


def stated(report):
    """(claim, setting, verdict, effect as text) of the verdicts of a report.md."""
    plain = re.sub(r"\\(.)", r"\1", report.read_text())
    rows = re.findall(
        r"^\| (\w+) \| (.+?) \| . ([a-z ]+?)(?: \(.*?\))? \| .*? \| (.*?) \| [^|]* \|$", plain, re.MULTILINE
    )
    assert rows, f"{report}: no verdict in it"
    return rows


def unproved(report, archives):
    """The verdicts of a report that no archive has."""
    known = {}
    for archive in archives:
        verdicts = archive.with_name(archive.name.replace(".tar.xz", ".verdicts.csv"))
        for row in csv.DictReader(verdicts.read_text().splitlines()):
            known.setdefault((row["claim"], row["setting"], row["verdict"]), []).append(row)

    def shows(effect, row):
        ends = [abs(float(row[name])) for name in ("low", "high") if row[name]]
        return all(f"{end:.2f}" in effect for end in ends if math.isfinite(end))

    return [one for one in stated(report) if not any(shows(one[3], row) for row in known.get(one[:3], []))]


EFFECT = re.compile(r"([+−]\d+\.\d\d) \[([+−]\d+\.\d\d), ([+−]\d+\.\d\d)\](?: \**([a-z ]+?)\** \|)?")
UNDECIDED = {"undecided": "not enough runs"}  # what a page calls it where all stated seeds are there


def effects_without_evidence(page, archives=ARCHIVES):
    """Effects with their interval, and a verdict behind them, in the text of a page that no archive has."""
    known = set()
    for archive in archives:
        verdicts = archive.with_name(archive.name.replace(".tar.xz", ".verdicts.csv"))
        for row in csv.DictReader(verdicts.read_text().splitlines()):
            if row["low"] and math.isfinite(float(row["low"])) and math.isfinite(float(row["high"])):
                numbers = tuple(f"{float(row[name]):+.2f}".replace("-", "−") for name in ("effect", "low", "high"))
                known |= {(*numbers, row["verdict"]), (*numbers, "")}
    found = EFFECT.findall(page)
    return [one for one in found if (*one[:3], UNDECIDED.get(one[3], one[3])) not in known]


# Of wings with evidence: the runs of the depth study were not kept.
PAGES = [DOCS / "papers" / f"{wing}.md" for wing in sorted({re.match(r"\w+", path.name)[0] for path in ARCHIVES})]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_effects_in_the_text_of_pages_are_those_of_the_evidence(page):
    assert effects_without_evidence(page.read_text()) == []


def test_an_effect_that_no_archive_has_is_seen():
    text = (DOCS / "papers" / "simplex_etf.md").read_text()
    assert len(EFFECT.findall(text)) >= 24
    assert effects_without_evidence("| +9.24 [+8.57, +9.92] **holds** |") == [("+9.24", "+8.57", "+9.92", "holds")]
    assert effects_without_evidence("| +9.24 [+8.57, +9.91] fails |") == [("+9.24", "+8.57", "+9.91", "fails")]
    assert effects_without_evidence("| +9.24 [+8.57, +9.91] **holds** |") == []


REPORTS = {str(path.relative_to(DOCS)): path for path in DOCS.glob("results/**/report.md")}


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_every_verdict_of_a_report_in_docs_has_its_runs_among_the_evidence(name):
    assert unproved(REPORTS[name], ARCHIVES) == []


# The independent judge and ours on runs that are made up: every kind of verdict, and numbers changed afterwards


EPS = 0.2
CLOTHES = {"dataset": {"name": "fashion_mnist", "train_size": None}}


def made(runs, etf, seed, test, train=0.94, **settings):
    """A run whose files agree with one another: accuracies, and the effective depth at EPS by its NCC."""
    how = {"metrics": {"every": 1, "probe": "linear", "eps": EPS}}
    folder = write_run(runs, etf, seed, **how | CLOTHES | settings)
    lines = (folder / "metrics.csv").read_text().splitlines()
    end = lines[-1].split(",")[0]
    for split, accuracy in (("train", train), ("test", test)):
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{end},{split},network,accuracy,")]
        lines[at] = f"{end},{split},network,accuracy,{accuracy!r}"
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    start = json.loads((folder / "events.jsonl").read_text().splitlines()[0])
    stages = [layer["layer"] for layer in start["layers"] if layer["stage"] is not None]
    known = {line.rpartition(",")[0]: float(line.rpartition(",")[2]) for line in lines[1:]}
    depth = effective_depth([known[f"{end},train,{stage},ncc_accuracy"] for stage in stages], EPS)
    return edit(folder, test=test, train=train, effective_depth=None if math.isnan(depth) else depth)


def committed(folder, wing, runs):
    """What would be committed of these runs: their archive with verdicts and details beside it."""
    out = folder / "evidence"
    out.mkdir(exist_ok=True)
    assert runs_command(["pack", str(runs), "--unfinished", "--out", str(out / f"{wing}.tar.xz")]) == 0
    judge_wing(find_wing(wing), folder / "o", [runs])
    for name in ("verdicts", "details"):
        (folder / "o" / wing / "report" / f"{name}.csv").rename(out / f"{wing}.{name}.csv")


@pytest.fixture(scope="module")
def first_runs(tmp_path_factory):
    """MLPs and transformers of the first paper: a clear advantage, a small one, a loss, a ceiling, a seed too few."""
    place = tmp_path_factory.mktemp("first")
    runs = place / "runs"

    def near(at, seed):
        """An accuracy on 10,000 images, not the same with every seed."""
        return round(at + ((7 * seed) % 5 - 2) * 0.0004, 4)

    for seed in range(5):
        made(runs, BASELINE, seed, near(0.88, seed))
        for k, of_etf, of_frozen in ((1, 0.88, 0.891), (2, 0.882, 0.879), (3, 0.86, 0.865)):
            made(runs, last(k), seed, near(of_etf, 3 * seed + k), near(of_etf + 0.05, seed), experiment="etf")
            made(runs, last(k, kind="frozen_scaled"), seed, near(of_frozen, seed + k), experiment="frozen")
        for kind in ("etf", "frozen_scaled"):
            fix = [(7, "fc5")] if seed else []  # nothing is fixed with seed 0
            rule = {"kind": kind, "patience": 1, "start": 5, "pause": 1, "order": "deepest_first", "maps": "all"}
            made(runs, ADAPTIVE | rule, seed, near(0.884, seed + 1), experiment=f"a{kind}", fix=fix)
        clock = rule | {"name": "clock", "kind": "etf", "frame": "nearest", "classifier_frame": "nearest"}
        del clock["patience"]
        for k, fix in ((1, [(5, "fc5")]), (2, [(5, "fc5"), (6, "fc4")])):  # Adaptive-ETF fixed one layer
            made(runs, clock | {"k": k}, seed, near(0.87, seed + k), experiment="clock", fix=fix)
        constant = {"experiment": "author", "schedule": {"name": "constant"}}
        for of_all, frames in enumerate((("canonical", "canonical"), ("canonical", "random"), ("random", "random"))):
            etf = last(3, frame=frames[0], classifier_frame=frames[1])
            made(runs, etf, seed, near(0.85, seed + of_all), near(0.9 + 0.005 * of_all, seed), **constant)
        for blocks in (1, 2):
            how = {"model": vit(blocks), "experiment": "vit", "epochs": 12}
            made(runs, BASELINE, seed, near(0.86, seed), **how)
            # two blocks leave nothing to be won: a ceiling
            made(runs, FFN, seed, near(0.858, seed + blocks) if blocks == 1 else 1.0, **how)
            made(runs, FFN | {"kind": "frozen_scaled"}, seed, near(0.85, seed) if blocks == 1 else 1.0, **how)
        digits = {"experiment": "digits", "dataset": {"name": "digits", "train_size": None}}
        made(runs, last(1), seed, (300 + seed % 2) / 360, **digits)
        made(runs, BASELINE, seed, 301 / 360, **digits)
    diverge(runs, last(2), 5, experiment="etf", metrics={"every": 1, "probe": "linear", "eps": EPS}, **CLOTHES)
    made(runs, BASELINE, 5, near(0.88, 5))
    committed(place, "simplex_etf", runs)
    return place


@pytest.fixture
def first_paper(first_runs, tmp_path):
    shutil.copytree(first_runs, tmp_path, dirs_exist_ok=True)
    return tmp_path / "evidence" / "simplex_etf.tar.xz"


@pytest.fixture
def depth_paper(tmp_path):
    """Series of the depth study: one that falls, one that hardly does, one with a depth that diverged."""
    runs = tmp_path / "runs"
    how = {"noise": 0.01, "seeds": range(5)}
    write_series(runs, (2, 5, 13, 34), model=RN1, loss=CE, experiment="depth_rn1", **how)
    write_series(runs, (2, 5, 13, 34), model=T11, loss=CE, experiment="depth_t11", slope=-0.05, **how)
    lost = next((runs / "depth_rn1").glob("*s3*"))
    (lost / "DONE").unlink()
    with (lost / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "diverged"}) + "\n")
    committed(tmp_path, "depth", runs)
    return tmp_path / "evidence" / "depth.tar.xz"


def verdicts_of(archive):
    lines = archive.with_name(archive.name.replace(".tar.xz", ".verdicts.csv")).read_text().splitlines()
    return {line.split(",")[-5] for line in lines[1:]}


def test_both_judges_agree_on_the_first_paper(first_paper):
    assert check(first_paper) > 60
    assert verdicts_of(first_paper) == {"holds", "fails", "smaller than the margin", "ceiling", "not enough runs"}


def test_both_judges_agree_on_series(depth_paper):
    assert check(depth_paper) > 10
    assert {"holds", "fails", "smaller than the margin", "not enough runs"} <= verdicts_of(depth_paper)


@pytest.mark.parametrize(
    ("of", "found", "instead", "message"),
    [
        ("verdicts", r"(last_k_test.*etf.k=3\",)fails", r"\1holds", "'verdict': ('holds', 'fails')"),
        ("verdicts", r"(last_k_test.*etf.k=3\",fails,-\d\.)\d", r"\g<1>7", "'effect'"),
        ("verdicts", r"(last_k_test.*etf.k=3\",fails,[^,]*,-\d\.)\d", r"\g<1>9", "'low'"),
        ("verdicts", r"(ncc_rises_mlp.*fashion.*,)\d$", r"\g<1>9", "'seeds': ('9', "),
        ("details", r"(last_k_test.*etf.k=3\",no,[^,]*,fails,)fails", r"\1not enough runs", "'holm'"),
        ("details", r"(ffn_etf_saves.*1\",)yes", r"\1no", "'arithmetic': ('no', 'yes')"),
        ("both", r"last_k_test.*etf.k=3\".*\n", "", "not in verdicts.csv: last_k_test of etf/last_k"),
        ("details", r"last_k_test.*etf.k=3\".*\n", "", "details.csv has other rows"),
        ("verdicts", r"(ffn_etf_test,model.blocks=3,)not enough runs", r"\1holds", "no such runs"),
    ],
)
def test_a_committed_file_that_says_something_else_is_found(first_paper, of, found, instead, message):
    for name in ("verdicts", "details") if of == "both" else (of,):
        file = first_paper.with_name(f"simplex_etf.{name}.csv")
        text, count = re.subn(found, instead, file.read_text(), flags=re.MULTILINE)
        assert count == 1
        file.write_text(text)
    with pytest.raises(Mismatch) as error:
        check(first_paper)
    assert message in str(error.value)


def test_numbers_are_compared_by_their_own_size():
    """An NC1 of 1e-15 that is called 2e-15 is another number; a gap of 1e-11 is the rounding of objectives."""
    claim, numbers = {"id": "c", "statistic": "free_nc1_last", "family": ""}, [1e-15, 2e-15]
    case = Case(claim, None, None, dict(enumerate(numbers)), [], numbers, None, [], [])
    case.mean, case.low, case.high = 1.5e-15, *numbers
    row = {"verdict": case.verdict, "seeds": "2", "effect": "1.5e-15", "low": "1e-15", "high": "2e-15"}
    behind = {"holm": "", "family": "", "arithmetic": "no", "margin": ""}
    assert differences(case, row, behind) == {}
    assert set(differences(case, row | {"effect": "1.6e-15"}, behind)) == {"effect"}
    case.claim["statistic"] = "optimum_gap"
    assert differences(case, row | {"effect": "1.6e-15"}, behind) == {}
    assert set(differences(case, row | {"effect": "1.6e-13"}, behind)) == {"effect"}
    for size in (1e-15, 88.0, 1e9):
        case.numbers = {0: size, 1: size * (1 + 1e-13)}
        case.read = [*case.numbers.values()]
        assert case.spread == 0
        case.numbers = {0: size, 1: size * (1 + 1e-6)}
        case.read = [*case.numbers.values()]
        assert case.spread > 0


def repacked(archive, runs, name, found, instead):
    """The archive of runs of which one file was changed."""
    (folder,) = runs.glob(name)
    text, count = re.subn(found, instead, folder.read_text(), count=1)
    assert count == 1
    folder.write_text(text)
    assert runs_command(["pack", str(runs), "--unfinished", "--out", str(archive)]) == 0


def test_a_run_whose_number_was_changed_is_found(first_paper, tmp_path):
    name = "etf/last_k-s1-*/summary.json"
    (folder,) = [p for p in (tmp_path / "runs").glob(name) if "k: 3\n" in (p.parent / "config.yaml").read_text()]
    name = str(folder.relative_to(tmp_path / "runs"))
    repacked(first_paper, tmp_path / "runs", name, r'("test": {"accuracy": 0\.8)\d', r"\g<1>1")
    with pytest.raises(Mismatch, match=r"0\.81 in summary\.json, 0\.86 in metrics\.csv"):
        check(first_paper)
    metrics = name.replace("summary.json", "metrics.csv")
    repacked(first_paper, tmp_path / "runs", metrics, r"(\n20,test,network,accuracy,0\.8)\d", r"\g<1>1")
    with pytest.raises(Mismatch, match=r"last_k_test, fashion_mnist, 20 epochs, etf\.k=.*'low'"):  # they share a spread
        check(first_paper)


def test_a_report_that_says_something_else_is_found(first_paper, tmp_path):
    report = tmp_path / "o" / "simplex_etf" / "report" / "report.md"
    assert unproved(report, [first_paper]) == []
    assert len(stated(report)) > 30
    text = report.read_text()
    for found, instead in (
        (r"(\| last\\_k\\_test .*etf\.k=3 \| ✘) fails", r"\1 holds"),
        (r"(\| last\\_k\\_test .*etf\.k=3 \| .*? \[-\d\.)\d", r"\g<1>9"),
    ):
        changed, count = re.subn(found, instead, text)
        assert count == 1
        report.write_text(changed)
        assert [one[:2] for one in unproved(report, [first_paper])] == [
            ("last_k_test", "fashion_mnist, 20 epochs, etf.k=3")
        ]


def test_a_statistic_without_independent_code_is_named(first_paper):
    claim = {"id": "new", "statistic": "of_a_new_wing", "runs": {"model.name": "mlp"}}
    assert judge([claim | {"runs": {"model.name": "another"}}], read_archive(first_paper)) == []
    with pytest.raises(Mismatch, match="new: no code of its own for of_a_new_wing; add it to STATISTICS"):
        judge([claim], read_archive(first_paper))


@pytest.mark.parametrize("wing", [find_wing(name) for name in wing_names()], ids=lambda wing: wing.name)
def test_every_statistic_of_a_shipped_ledger_has_independent_code(wing):
    assert {claim["statistic"] for claim in read_claims(wing.ledger)} <= set(STATISTICS)


def test_the_independent_judge_imports_nothing_of_the_analysis():
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("recomputed*.py"))
    assert set(re.findall(r"^ *(?:from|import) (nclab[\w.]*)", text, re.MULTILINE)) == {"nclab.config.keys"}
