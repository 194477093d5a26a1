"""The ledger of claims: its defaults, every mistake in it, its conditions, and the one that ships."""

from pathlib import Path

import pytest
import yaml
from fake_runs import last, write_run

from nclab.analysis.ledger import condition_text, load_ledger, meets
from nclab.analysis.runs import AnalysisError, flatten, load_runs

ROOT = Path(__file__).parents[1]
LEDGER = ROOT / "conf" / "paper" / "simplex_etf" / "claims.yaml"

ENTRY = {
    "id": "one",
    "claim": "A text.",
    "source": "control, ours",
    "treatment": {"etf.name": "last_k"},
    "baseline": {"etf.name": "none"},
    "statistic": "test_accuracy",
    "kind": "not_lower",
    "commands": ["nclab-paper run simplex_etf --part figure1"],
}
ALONE = {"treatment": None, "baseline": None, "runs": {"etf.name": "none"}}

SERIES = ALONE | {
    "statistic": "nc1_trace_ratio_last",
    "kind": "at_most",
    "threshold": "-0.1 decades per decade",
    "along": "model.blocks",
}


def ledger(path, *changes):
    """A file of entries, each ENTRY with changes; None removes a key."""
    entries = [{k: v for k, v in (ENTRY | change).items() if v is not None} for change in changes]
    path.write_text(yaml.safe_dump(entries))
    return path


@pytest.mark.fast
def test_an_entry_with_its_defaults(tmp_path):
    (one,) = load_ledger(ledger(tmp_path / "l.yaml", {}))
    assert (one.margin, one.per, one.deterministic, one.commands) == (
        None,
        {},
        False,
        ("nclab-paper run simplex_etf --part figure1",),
    )
    assert one.written.startswith("non-inferiority, margin 5 % of the baseline's errors")
    assert (one.family, one.seeds) == ("", None)
    (other,) = load_ledger(ledger(tmp_path / "l.yaml", {"margin": "0.2 points", "why": "small"}))
    assert (other.margin, other.why, other.written) == (0.2, "small", "non-inferiority, margin 0.2 points")
    alone = {"statistic": "saved_share", "kind": "equals", "threshold": "20.4 %", "margin": "0.1 %"}
    (alone,) = load_ledger(ledger(tmp_path / "l.yaml", ALONE | alone))
    assert (alone.threshold, alone.margin, alone.treatment, alone.baseline) == (20.4, 0.1, {"etf.name": "none"}, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treatmnt": {}}, r"unknown key 'treatmnt'; valid: id, claim,.*treatment"),
        ({"source": None}, "lacks source; required: id, claim"),
        ({"source": None, "sauce": "x"}, "unknown key 'sauce'; valid: id"),  # and not the one lacking for its sake
        ({3: "x"}, "keys should be strings, got 3"),
        ({"treatment": {3: "x"}}, "treatment: 3: .*string"),
        ({"commands": []}, "commands: list should have at least 1 item"),
        ({"claim": 3}, "claim: input should be a valid string, got 3"),
        ({"id": "a b"}, r"\(a b\): id: expected a word of letters, digits and _, got 'a b'"),
        ({"statistic": "accuracy"}, r"statistic: expected one of test_accuracy, .*early_ncc.*; got 'accuracy'"),
        ({"statistic": ["test_accuracy"]}, "statistic: input should be a valid string"),
        ({"kind": "beats"}, "kind: expected one of not_lower, higher, .*; got 'beats'"),
        ({"baseline": None}, "kind not_lower takes treatment and baseline, got treatment"),
        ({"runs": {"seed": 1}}, "takes treatment and baseline, got treatment, baseline, runs"),
        ({"kind": "at_least"}, "kind at_least takes runs, got treatment, baseline"),
        ({"treatment": {}}, "treatment: dictionary should have at least 1 item"),
        ({"treatment": "last_k"}, "treatment: input should be a valid dictionary, got 'last_k'"),
        ({"treatment": {"etf.k": {"max": 3}}}, r"treatment: etf.k: expected a value, a list .*, got \{'max': 3\}"),
        ({"treatment": {"etf.k": {}}}, r"\{not: value\}, \{min: number\} or \{times: key, is: number\}, got \{\}"),
        ({"treatment": {"a": {"times": "b"}}}, r"treatment: a: expected .*, got \{'times': 'b'\}"),
        ({"treatment": {"a": {"times": "b", "is": "c"}}}, "treatment: a: expected a value"),
        ({"treatment": {"a": {"times": "b", "is": 1, "not": 2}}}, "treatment: a: expected a value"),
        ({"treatment": {"a": {"is": 1}}}, "treatment: a: expected a value"),
        ({"treatment": {"etf.k": {"min": "a"}}}, r"etf.k: expected .* got \{'min': 'a'\}"),
        ({"seeds": 1}, "seeds: input should be greater than or equal to 2, got 1"),
        ({"seeds": "10"}, "seeds: input should be a valid integer"),
        ({"family": ""}, "family: value should have at least 1 item"),
        ({"margin": 0.5}, "margin must be a number of 'points', got '0.5'"),
        ({"margin": "0.5 %"}, "margin must be a number of 'points', got '0.5 %'"),
        ({"margin": "half points"}, "margin must be a number"),
        ({"margin": "-1 points"}, "margin must be above 0, got -1 points"),
        ({"threshold": "1 points"}, "kind not_lower takes margin, got threshold"),
        (ALONE | {"kind": "at_least"}, "kind at_least takes threshold, got neither"),
        (ALONE | {"kind": "every_seed_at_most"}, "kind every_seed_at_most takes threshold, got neither"),
        (
            {"kind": "every_seed_at_least", "threshold": "1 points"},
            "kind every_seed_at_least takes runs, got treatment",
        ),
        ({"statistic": "early_ncc"}, "kind not_lower takes margin, got neither"),
        ({"spread": True}, "spread takes kind lower or higher, got not_lower"),
        ({"spread": True, "kind": "lower", "margin": None}, "spread takes a margin, got none"),
        ({"deterministic": "yes"}, "deterministic: input should be a valid boolean, got 'yes'"),
        (
            {"commands": "nclab-paper run simplex_etf --part figure1"},
            "commands: input should be a valid list, got 'nclab-paper run simplex_etf --part figure1'",
        ),
        ({"per": {"etf.k": 3}}, "per: etf.k: input should be a valid list, got 3"),
        ({"per": [3]}, r"per: input should be a valid dictionary, got \[3\]"),
        ({"per": {"etf.name": ["none"]}}, "etf.name is both a condition and in per"),
        (
            {"along": "model.blocks"},
            r"along takes a kind that compares nothing \(at_least, at_most, .*\), got not_lower",
        ),
        (SERIES | {"along": ""}, "along: value should have at least 1 item"),
        (SERIES | {"along": ["model.blocks"]}, "along: input should be a valid string"),
        (
            SERIES | {"statistic": "train_accuracy"},
            r"positive \(nc1_trace_ratio_last, .*nc3_cosine_last[^)]*\), got train_accuracy",
        ),
        (SERIES | {"statistic": "nc2_weight_gram_minus_orthogonal"}, "statistic that is positive"),
        (SERIES | {"threshold": "-0.1 ratio"}, "threshold must be a number of 'decades per decade', got '-0.1 ratio'"),
        (
            SERIES | {"runs": {"model.blocks": [2, 5]}},
            r"slope along model.blocks takes at least 3 values, got \[2, 5\]",
        ),
        (SERIES | {"runs": {"model.blocks": 5}}, "takes at least 3 values"),
        (
            SERIES | {"runs": {"a": {"times": "b", "is": 1}}},
            "a: times b in a series along model.blocks: expected that key",
        ),
        (SERIES | {"per": {"model.blocks": [2, 5, 13]}}, "model.blocks is both along and in per"),
    ],
)
def test_a_mistake_in_the_ledger_is_one_line(tmp_path, change, message):
    with pytest.raises(AnalysisError, match=message) as error:
        load_ledger(ledger(tmp_path / "l.yaml", change))
    assert "\n" not in str(error.value)
    assert "l.yaml, claim 1" in str(error.value)


@pytest.mark.fast
def test_a_file_that_is_no_ledger(tmp_path):
    file = tmp_path / "l.yaml"
    for text, message in (
        ("", "expected a list"),
        ("a: 1", "unknown key 'a'; valid: title, paper, plan, seeds, claims"),
        ("[a", "while parsing"),
        ("[a]", "claim 1: .*dictionary.*, got 'a'"),
    ):
        file.write_text(text)
        with pytest.raises(AnalysisError, match=message) as error:
            load_ledger(file)
        assert "\n" not in str(error.value)
    with pytest.raises(AnalysisError, match="No such file"):
        load_ledger(tmp_path / "absent.yaml")
    for text, message in (
        ("3", "expected a list of claims, alone or under the key claims beside title, paper, plan, seeds; got int"),
        ("title: a", "lacks claims; required: claims"),
        ("claims: []", "claims: list should have at least 1 item"),
        ("claims: 3", "claims: input should be a valid list, got 3"),
        ("{claims: [], name: a}", "unknown key 'name'; valid: title, paper, plan, seeds, claims"),
        ("{claims: [], title: 3}", "title: input should be a valid string, got 3"),
        ("{claims: [], plan: ''}", "plan: value should have at least 1 item"),
    ):
        file.write_text(text)
        with pytest.raises(AnalysisError, match=message):
            load_ledger(file)
    with pytest.raises(AnalysisError, match="id 'one' is there twice"):
        load_ledger(ledger(file, {}, {}))


def test_a_file_with_a_title(tmp_path):
    plain = load_ledger(ledger(tmp_path / "l.yaml", {}))
    assert (plain.title, plain.paper, plain.plan, len(plain)) == (
        "Neural collapse: the ledger of claims",
        "",
        "",
        1,
    )
    tree = {"title": "A  title", "paper": "A paper", "plan": "depth", "claims": [ENTRY]}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(tree))
    titled = load_ledger(tmp_path / "m.yaml")
    assert (titled.title, titled.paper, titled.plan) == ("A title", "A paper", "depth")
    assert titled.claims == plain.claims
    assert "2412.00884" in load_ledger(LEDGER).paper
    assert load_ledger(LEDGER).title == "Intermediate neural collapse with simplex ETFs: the ledger of claims"


def test_seeds_of_a_file_and_families_that_go_on(tmp_path):
    file = tmp_path / "l.yaml"
    changes = ({}, {"family": "Figure 1"}, {"seeds": 8}, {"family": "controls"}, {})
    entries = [ENTRY | {"id": f"claim_{i}"} | change for i, change in enumerate(changes)]
    file.write_text(yaml.safe_dump({"seeds": 10, "claims": entries}))
    claims = load_ledger(file)
    assert [one.family for one in claims] == ["", "Figure 1", "Figure 1", "controls", "controls"]
    assert [one.seeds for one in claims] == [10, 10, 8, 10, 10]
    file.write_text(yaml.safe_dump(entries[:2]))
    assert [one.seeds for one in load_ledger(file)] == [None, None]
    file.write_text(yaml.safe_dump({"seeds": 1, "claims": entries}))
    with pytest.raises(AnalysisError, match="seeds: input should be greater than or equal to 2, got 1"):
        load_ledger(file)


def test_the_shipped_ledgers_state_seeds_and_families_and_what_is_arithmetic():
    for wing in ("simplex_etf", "depth"):
        claims = load_ledger(ROOT / "conf" / "paper" / wing / "claims.yaml")
        assert all(one.seeds and one.family for one in claims), wing
        assert all(one.family != one.source for one in claims)
    arithmetic = [one for one in load_ledger(LEDGER) if one.statistic.name == "saved_share" and one.rule.interval]
    assert len(arithmetic) == 5
    assert all(one.deterministic for one in arithmetic)  # the policy fixes the same layers whatever is learnt
    assert not [one.id for one in load_ledger(LEDGER) if "tables of parameters" in one.source]


def test_what_matches_is_equivalence_and_what_reaches_is_non_inferiority():
    ledger = [one for one in load_ledger(LEDGER) if one.rule.paired]
    kinds = {"comparable": "equivalent", "matches": "equivalent", "reaches the t": "not_lower"}
    found = [(one.id, one.kind, kind) for word, kind in kinds.items() for one in ledger if word in one.claim]
    assert len(found) >= 6
    assert [pair for pair in found if pair[1] != pair[2]] == []


def test_a_series_and_its_defaults(tmp_path):
    tied = {"model.maps": 2, "loss.l2": {"times": "model.blocks", "is": 0.005}}
    one, other = load_ledger(ledger(tmp_path / "l.yaml", SERIES, SERIES | {"id": "two", "runs": tied}))
    assert (one.along, one.unit, one.threshold, one.free) == (
        *("model.blocks", "decades per decade", -0.1, {"model.blocks"}),
    )
    assert other.free == {"model.blocks", "loss.l2"}
    assert one.about.endswith("Judged is the slope of its log10 on log10 of model.blocks, one line a seed.")
    alone = ALONE | {"statistic": "nc1_trace_ratio_last", "kind": "at_most", "threshold": "0.1 ratio", "runs": tied}
    (plain,) = load_ledger(ledger(tmp_path / "l.yaml", alone))
    assert (plain.along, plain.unit, plain.free) == ("", "ratio", set())


def test_a_product_of_two_keys(tmp_path):
    times = {"times": "model.depth", "is": 0.005}
    for l2, met in ((0.005 / 5, True), (0.001 * (1 + 1e-9), True), (0.00101, False), (0.005, False)):
        run = load_runs([write_run(tmp_path, loss={"name": "cross_entropy", "l2": l2})])[0]
        assert meets(run, {"loss.l2": times}) is met, l2
        assert not meets(run, {"loss.l2": times | {"times": "model.blocks"}})  # a key that the run has not
        assert not meets(run, {"loss.name": times})
    assert condition_text({"loss.l2": times}) == "loss.l2 × model.depth=0.005"


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
    keys = {*flatten(yaml.safe_load((ROOT / "conf" / "train.yaml").read_text()))}
    for group in ("dataset", "model", "etf", "schedule"):
        for file in (ROOT / "conf" / group).glob("*.yaml"):
            keys |= {f"{group}.{key}" for key in yaml.safe_load(file.read_text())}
    claims = load_ledger(LEDGER)
    assert len(claims) >= 20
    for one in claims:
        assert {*one.named, *one.per} <= keys, one.id
