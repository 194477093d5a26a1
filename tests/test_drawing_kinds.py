"""A drawing pointed at runs of another kind: refused in one line that names the drawings that fit."""

import json

import pytest
from fake_depth_runs import write_series
from fake_runs import ADAPTIVE, BASELINE, last, vit, write_run, write_transformers

from nclab.analysis import DRAWINGS, AnalysisError, drawings, load_runs
from nclab.analysis.cli import main

DEEP = {"depth", "depth_blocks"}
ANY = {"depth_profile", "layers", "pareto", "summary", "variants"}
UNASKED = {"curves", "heatmap", "memory", "sweep"}  # of any runs that measured what is asked for: they name no kind
# Kind of runs -> the drawings that can show them; all others refuse them.
FITTING = {
    "mlp": ANY | {"figure1", "figure2", "table1"},
    "adaptive": ANY | {"figure2", "switches", "table1"},
    "vit": ANY | DEEP | {"figure3", "figure4", "table2"},
    "vit_without_policy": ANY | DEEP | {"figure3", "figure4", "table2"},
    "rn": ANY | DEEP,
    "values": set(),
}
OF_SUITES = {  # that none of these runs measures; or of free features
    *("etf_networks", "etf_networks_table"),
    *(f"transfer_{what}" for what in ("curves", "scatter", "table", "correlations")),
    *(f"long_tail{what}" for what in ("", "_classes", "_minority", "_table", "_post_hoc", "_free")),
    *("forgetting", "task_matrices", "buffer_collapse", "forgetting_table"),
    *("terminal_phase", "class_plane", "central_path", "max_margin"),
    *("hadamard_singular_values", "hadamard_lyapunov", "hadamard_face"),
    *(f"regression_{what}" for what in ("curves", "g", "variance", "ufm")),
    *("landscape", "landscape_ends", "landscape_losses", "saddles", "graph_ratio", "nearest_etf", "nearest_rates"),
    *(f"deep_{what}" for what in ("objective", "singular_values", "rank", "ends")),
}
NETWORK = {"mlp": "mlp", "adaptive": "mlp", "vit": "vit", "vit_without_policy": "vit", "rn": "rn", "values": "mlp"}


def without_classes(folder):
    """What a run on real-valued targets leaves: no class means, no accuracy."""
    summary = json.loads((folder / "summary.json").read_text())
    summary["final"] = {split: {"loss": 0.1} for split in ("train", "test")}
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = (folder / "metrics.csv").read_text().splitlines()
    kept = [line.replace("network,accuracy", "network,r2") for line in lines if "ncc_accuracy" not in line]
    (folder / "metrics.csv").write_text("\n".join(kept) + "\n")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    for seed in (0, 1):
        for etf in (BASELINE, last(1)):
            write_run(root, etf, seed, experiment="mlp")
            without_classes(write_run(root, etf, seed, experiment="values", loss={"name": "mse"}))
        write_run(root, ADAPTIVE, seed, experiment="adaptive", fix=[(7, "fc5")])
        write_run(root, BASELINE, seed, experiment="vit_without_policy", model=vit(2))
    write_transformers(root, depths=(2,), experiment="vit")
    write_series(root, depths=(2,), seeds=(0, 1), experiment="rn")
    return root


def drawn(name, runs, monkeypatch, tmp_path, policies=None):
    """The error that refuses them, None where they were drawn."""
    monkeypatch.setattr(drawings, "save_figure", lambda figure, table, out: [out])
    try:
        DRAWINGS[name].save(runs, tmp_path / name, policies)
    except AnalysisError as error:
        return str(error)
    return None


OURS = sorted(OF_SUITES.union(*FITTING.values()))


def test_every_drawing_is_here_and_declares_what_it_draws():
    assert DRAWINGS.names() == sorted({*OURS, *UNASKED})
    assert {
        name for name in DRAWINGS.names() if DRAWINGS[name].needs is None
    } == UNASKED  # declare needs where it is registered


@pytest.mark.parametrize("kind", FITTING)
@pytest.mark.parametrize("name", OURS)
def test_runs_of_every_kind_on_every_drawing(kinds, tmp_path, monkeypatch, kind, name):
    if name in DEEP and kind.startswith("vit"):
        pytest.skip("made-up vision transformers have no NC2")
    error = drawn(name, load_runs([kinds / kind]), monkeypatch, tmp_path)
    if name in FITTING[kind]:
        assert error is None
        return
    assert "\n" not in error
    assert error.startswith(f"{name} draws ")
    assert f"of model {NETWORK[kind]}" in error
    assert str(kinds / kind) in error
    fitting = error.partition("; they fit ")[2]
    if FITTING[kind]:
        assert set(fitting.split(", ")) == FITTING[kind]
    else:
        assert error.endswith("; no drawing shows them, nclab-runs export writes their numbers")


def test_runs_of_another_kind_among_them_are_left_out_and_counted(kinds, tmp_path, monkeypatch, capsys):
    runs = load_runs([kinds / "mlp", kinds / "vit_without_policy"])
    assert drawn("figure1", runs, monkeypatch, tmp_path) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: 2 of 6 runs, of model vit, policy baseline: figure1 draws ")
    assert drawn("figure1", load_runs([kinds / "mlp"]), monkeypatch, tmp_path) is None
    assert capsys.readouterr().err == ""


def test_where_no_drawing_shows_all_of_them_those_that_show_some_are_named(kinds, tmp_path, monkeypatch):
    runs = load_runs([kinds / "mlp", kinds / "values"])
    error = drawn("figure3", runs, monkeypatch, tmp_path)
    assert "policy baseline, last 1 ETF, without classes; some of them fit " in error
    assert set(error.partition("some of them fit ")[2].split(", ")) == FITTING["mlp"]


def test_named_policies_need_not_be_the_usual_ones(kinds, tmp_path, monkeypatch):
    runs = load_runs([kinds / "adaptive"])
    assert "figure1 draws" in drawn("figure1", runs, monkeypatch, tmp_path)
    assert drawn("figure1", runs, monkeypatch, tmp_path, ["Adaptive-ETF"]) is None


def test_the_command_exits_with_2_and_one_line(kinds, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["figure2", str(kinds / "vit"), "--out", str(tmp_path / "f")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nclab-draw: figure2 draws ")
    assert "figure3" in line
    assert list(tmp_path.iterdir()) == []


def test_a_drawing_that_declares_nothing_draws_what_it_gets(kinds, tmp_path, monkeypatch):
    """As those of packages that were written before there was a declaration."""
    monkeypatch.setattr(DRAWINGS, "_entries", dict(DRAWINGS._entries))

    @DRAWINGS.table("brought", of="any runs")
    def brought(runs, policies=None):
        return DRAWINGS["summary"].make(runs, policies)

    assert drawn("brought", load_runs([kinds / "vit"]), monkeypatch, tmp_path) is None
