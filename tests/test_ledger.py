"""The ledger of claims: its defaults, every mistake in it, its conditions, and the one that ships."""

from pathlib import Path

import pytest
import yaml
from fake_runs import last, write_run

from nclab.analysis.ledger import condition_text, load_ledger, meets
from nclab.analysis.runs import AnalysisError, load_runs

ROOT = Path(__file__).parents[1]
LEDGER = ROOT / "conf" / "claims.yaml"

ENTRY = {
    "id": "one",
    "claim": "A text.",
    "source": "control, ours",
    "treatment": {"etf.name": "last_k"},
    "baseline": {"etf.name": "none"},
    "statistic": "test_accuracy",
    "kind": "not_lower",
    "commands": ["make figure1"],
}
ALONE = {"treatment": None, "baseline": None, "runs": {"etf.name": "none"}}


def ledger(path, *changes):
    """A file of entries, each ENTRY with changes; None removes a key."""
    entries = [{k: v for k, v in (ENTRY | change).items() if v is not None} for change in changes]
    path.write_text(yaml.safe_dump(entries))
    return path


def test_an_entry_with_its_defaults(tmp_path):
    (one,) = load_ledger(ledger(tmp_path / "l.yaml", {}))
    assert (one.margin, one.per, one.deterministic, one.commands) == (0.5, {}, False, ("make figure1",))
    assert "binomial standard error" in one.why
    (other,) = load_ledger(ledger(tmp_path / "l.yaml", {"margin": "0.2 points", "why": "small"}))
    assert (other.margin, other.why) == (0.2, "small")
    alone = {"statistic": "saved_share", "kind": "equals", "threshold": "20.4 %", "margin": "0.1 %"}
    (alone,) = load_ledger(ledger(tmp_path / "l.yaml", ALONE | alone))
    assert (alone.threshold, alone.margin, alone.treatment, alone.baseline) == (20.4, 0.1, {"etf.name": "none"}, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treatmnt": {}}, r"unknown key 'treatmnt'; valid: id, claim,.*treatment"),
        ({"source": None}, "lacks source; required: id, claim"),
        ({"commands": []}, "lacks commands"),
        ({"claim": 3}, "claim must be a text, got 3"),
        ({"id": "a b"}, "id must be a word"),
        ({"statistic": "accuracy"}, r"unknown statistic 'accuracy'; valid: test_accuracy, .*early_ncc"),
        ({"statistic": ["test_accuracy"]}, "unknown statistic"),
        ({"kind": "beats"}, "unknown kind 'beats'; valid: not_lower, higher"),
        ({"baseline": None}, "kind not_lower takes treatment and baseline, got treatment"),
        ({"runs": {"seed": 1}}, "takes treatment and baseline, got treatment, baseline, runs"),
        ({"kind": "at_least"}, "kind at_least takes runs, got treatment, baseline"),
        ({"treatment": {}}, r"treatment: expected conditions such as etf.name: none, got \{\}"),
        ({"treatment": "last_k"}, "treatment: expected conditions"),
        ({"treatment": {"etf.k": {"max": 3}}}, "etf.k: unknown operator 'max'; valid: not, min"),
        ({"treatment": {"etf.k": {}}}, "unknown operator ''; valid: not, min"),
        ({"treatment": {"etf.k": {"min": "a"}}}, "min must be a number, got a"),
        ({"margin": 0.5}, "margin must be a number of 'points', got '0.5'"),
        ({"margin": "0.5 %"}, "margin must be a number of 'points', got '0.5 %'"),
        ({"margin": "half points"}, "margin must be a number"),
        ({"margin": "-1 points"}, "margin must be above 0, got -1 points"),
        ({"threshold": "1 points"}, "kind not_lower takes margin, got threshold, margin"),
        (ALONE | {"kind": "at_least"}, "kind at_least takes threshold, got neither"),
        (ALONE | {"kind": "every_seed_at_most"}, "kind every_seed_at_most takes threshold, got neither"),
        (
            {"kind": "every_seed_at_least", "threshold": "1 points"},
            "kind every_seed_at_least takes runs, got treatment",
        ),
        ({"statistic": "early_ncc"}, "kind not_lower takes margin, got neither"),
        ({"deterministic": "yes"}, "deterministic must be true or false, got yes"),
        ({"commands": "make figure1"}, "commands must be a list of texts, got make figure1"),
        ({"per": {"etf.k": 3}}, "per must give a list of values a key"),
        ({"per": [3]}, "per must give a list of values a key"),
        ({"per": {"etf.name": ["none"]}}, "etf.name is both a condition and in per"),
    ],
)
def test_a_mistake_in_the_ledger_is_one_line(tmp_path, change, message):
    with pytest.raises(AnalysisError, match=message) as error:
        load_ledger(ledger(tmp_path / "l.yaml", change))
    assert "\n" not in str(error.value)
    assert "l.yaml, claim 1" in str(error.value)


def test_a_file_that_is_no_ledger(tmp_path):
    file = tmp_path / "l.yaml"
    for text, message in (("", "expected a list"), ("a: 1", "got dict"), ("[a", "while parsing"), ("[a]", "got str")):
        file.write_text(text)
        with pytest.raises(AnalysisError, match=message) as error:
            load_ledger(file)
        assert "\n" not in str(error.value)
    with pytest.raises(AnalysisError, match="No such file"):
        load_ledger(tmp_path / "absent.yaml")
    with pytest.raises(AnalysisError, match="id 'one' is there twice"):
        load_ledger(ledger(file, {}, {}))


def test_conditions(tmp_path):
    run = load_runs([write_run(tmp_path, last(2))])[0]
    for conditions, met in (
        ({"etf.k": 2, "model.name": "mlp"}, True),
        ({"etf.k": [1, 2]}, True),
        ({"etf.k": 3}, False),
        ({"etf.k": {"not": 3}}, True),
        ({"etf.k": {"not": [2, 3]}}, False),
        ({"model.depth": {"min": 5}}, True),
        ({"model.depth": {"min": 6}}, False),
        ({"model.depth": {"min": 4, "not": 5}}, False),
        ({"model.name": {"min": 1}}, False),
        ({"model.blocks": {"not": 3}}, False),  # a key that the run has not
    ):
        assert meets(run, conditions) is met, conditions
    text = condition_text({"etf.name": "none", "etf.k": [1, 2], "a": {"not": 0}, "b": {"min": 5}})
    assert text == "etf.name=none, etf.k=1|2, a not 0, b>=5"


def test_the_shipped_ledger_names_keys_that_exist():
    keys = set(yaml.safe_load((ROOT / "conf" / "train.yaml").read_text()))
    for group in ("dataset", "model", "etf"):
        for file in (ROOT / "conf" / group).glob("*.yaml"):
            keys |= {f"{group}.{key}" for key in yaml.safe_load(file.read_text())}
    claims = load_ledger(LEDGER)
    assert len(claims) >= 20
    for one in claims:
        assert {*one.named, *one.per} <= keys, one.id
