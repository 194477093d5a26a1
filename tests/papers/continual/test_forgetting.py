"""Runs over tasks: what is read of them, the numbers of the claims, the figures, the table, the plan."""

import math

import numpy as np
import pytest
import torch
from fake_task_runs import write_task_run

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.claims import judge
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.ledger import load_ledger
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.tables import text_table
from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.models import MODELS
from nclab.papers.continual.matrices_figure import chosen
from nclab.papers.continual.tasks import HEADS, PROBE, ends, final, forgetting, matrix, share
from nclab.papers.wings import find_wing

SHARES = (0.0, 0.01, 0.05, 1.0)


def value(name, folder, treated=None):
    DRAWINGS.names()  # the wing's statistics are found with its drawings
    (run,), (other,) = load_runs([folder]), load_runs([treated or folder])
    return STATISTICS[name].value(run, other)


@pytest.fixture
def sweep(tmp_path):
    """Four buffers, three seeds, and joint training: shallow forgetting falls by half from buffer to buffer."""
    for i, part in enumerate(SHARES):
        for seed in range(3):
            write_task_run(tmp_path, part, seed, shallow=0.4 / 2**i + 0.01 * seed, deep=0.04 / 2**i)
    for seed in range(3):
        write_task_run(tmp_path, None, seed)
    return tmp_path


def test_the_matrix_has_a_row_a_task_trained_and_a_column_a_task_tested(tmp_path):
    (run,) = load_runs([write_task_run(tmp_path, shallow=0.3, deep=0.05)])
    assert ends(run) == [4, 8, 12]
    network = np.array([[0.98, 0, 0], [0.68, 0.98, 0], [0.38, 0.68, 0.98]])
    np.testing.assert_allclose(matrix(run, HEADS), network)
    np.testing.assert_allclose(matrix(run, PROBE)[2], [0.88, 0.93, 0.98])
    assert forgetting(network) == pytest.approx(100 * (0.6 + 0.3) / 2)  # of tasks 1 and 2
    assert final(network) == pytest.approx(100 * (0.38 + 0.68 + 0.98) / 3)


def test_the_numbers_of_the_claims(tmp_path):
    folder = write_task_run(tmp_path / "a", 0.05, shallow=0.3, deep=0.05, present=0.9)
    expected = {
        "shallow_forgetting": 45,
        "deep_forgetting": 7.5,
        "shallow_beyond_deep": 37.5,
        "shallow_forgetting_to_half": 45,
        "deep_forgetting_to_half": 7.5,
        "final_accuracy": 68,
        "final_probe_accuracy": 93,
        "least_train_accuracy": 90,
        "control_nc1_over_buffer": 3,
        "buffer_collapse": math.log10(3),
        "buffer_inflation": 100 * (1.25 / 1.1 - 1),
        "last_log_snr": 1,
    }
    for name, number in expected.items():
        assert value(name, folder) == pytest.approx(number), name
    other = write_task_run(tmp_path / "b", 0.0)
    assert value("shallow_forgetting_to_half", folder, other) == pytest.approx(22.5)  # it is the baseline of `other`
    assert value("deep_forgetting_to_half", folder, other) == pytest.approx(3.75)


@pytest.mark.parametrize("held", [0.0, math.nan])
def test_a_buffer_without_variability_has_no_ratio(tmp_path, held):
    folder = write_task_run(tmp_path, memory_nc1=held, past_snr=math.nan)
    for name in ("control_nc1_over_buffer", "buffer_collapse", "last_log_snr"):
        assert math.isnan(value(name, folder))


def test_a_buffer_without_a_control_has_no_number(tmp_path):
    """Where too few samples are outside it, all samples of its classes do not stand in."""
    folder = write_task_run(tmp_path, control_nc1=math.nan, control_norm_ratio=math.nan)
    for name in ("control_nc1_over_buffer", "buffer_collapse", "buffer_inflation"):
        assert math.isnan(value(name, folder))


def test_what_is_no_run_over_tasks_is_refused(tmp_path):
    (joint,) = load_runs([write_task_run(tmp_path / "joint", None)])
    with pytest.raises(AnalysisError, match=r"expected splits task1, task2, \.\.\., got"):
        matrix(joint, HEADS)
    with pytest.raises(AnalysisError, match="expected runs with phases=tasks, got 1 of phases=single"):
        DRAWINGS["forgetting"].draw([joint])
    (run,) = load_runs([write_task_run(tmp_path / "tasks")])
    run.config["sampler"] |= {"share": None, "size": 100}
    with pytest.raises(AnalysisError, match=r"expected sampler\.share, got a buffer of sampler\.size=100"):
        share(run)
    run.config["epochs"] = 15  # as if no end of a task had been measured
    with pytest.raises(AnalysisError, match=r"no accuracy at epoch 5, the end of a task; expected metrics\.every that"):
        matrix(run, HEADS)


def test_runs_of_two_scenarios_or_rates_make_no_picture(tmp_path):
    write_task_run(tmp_path / "a", 0.0)
    write_task_run(tmp_path / "a", 0.05, incremental="task")
    with pytest.raises(AnalysisError, match=r"expected runs of one phases\.incremental, got class, task"):
        DRAWINGS["forgetting"].draw(load_runs([tmp_path / "a"]))
    write_task_run(tmp_path / "b", 0.05)
    write_task_run(tmp_path / "b", 0.05, seed=1, lr=0.001)
    with pytest.raises(AnalysisError, match=r"must not differ in optimizer\.lr"):
        DRAWINGS["forgetting"].draw(load_runs([tmp_path / "b"]))


def test_forgetting_against_the_buffer(sweep):
    figure, table = DRAWINGS["forgetting"].draw(load_runs([sweep]))
    row = table[(table.quantity == "forgetting") & (table.of == HEADS) & (table.buffer == 0.01)].iloc[0]
    assert (row["median"], row.low, row.high, row.n) == (pytest.approx(31.5), pytest.approx(30), pytest.approx(33), 3)
    joint = table[table.buffer.isna()].set_index("of")["median"]
    assert joint.to_dict() == pytest.approx({HEADS: 0.02, PROBE: 0.01})
    left, right = figure.axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["0", "1", "5", "100"]
    assert list(left.get_xticks())[:2] == pytest.approx([1 / 3, 1])  # 0 stands below the smallest
    assert right.get_yscale() == left.get_xscale() == "log"
    title = figure.get_suptitle()
    assert "Fashion-MNIST, 4,000 train images, MLP of 3 layers and width 64" in title
    assert "3 tasks of 4 epochs, one head" in title
    assert "median and range of 3 seeds" in title
    assert sorted(text.get_text() for text in figure.legends[0].get_texts())[-1] == "the network's head (shallow)"


def test_joint_training_is_the_bound_of_one_head_alone(tmp_path):
    for buffer in (0.0, 0.05):
        write_task_run(tmp_path, buffer, incremental="task")
    write_task_run(tmp_path, None)
    _, table = DRAWINGS["forgetting"].draw(load_runs([tmp_path]))
    assert table.buffer.notna().all()


def test_matrices_of_no_a_small_and_a_full_buffer(sweep):
    assert chosen([0.0, 0.01, 0.02, 0.05, 0.1, 1.0]) == [0.0, 0.05, 1.0]
    assert chosen([0.0, 1.0]) == [0.0, 1.0]
    figure, table = DRAWINGS["task_matrices"].draw(load_runs([sweep]))
    cell = table[(table.of == HEADS) & (table.buffer == 0) & (table.after == 3) & (table.task == 2)].iloc[0]
    assert (cell["mean"], cell.n) == (pytest.approx(98 - 41), 3)
    assert (table.task <= table.after).all()
    assert figure.axes[0].get_title() == "network, A, buffer 0 %"


def test_the_buffer_beside_all_earlier_samples(sweep):
    figure, table = DRAWINGS["buffer_collapse"].draw(load_runs([sweep]))
    for column, number in (("memory_nc1", 0.2), ("control_nc1", 0.6), ("control_norm_ratio", 1.1)):
        assert table[(table.column == column) & (table.buffer == 0.05)]["median"].item() == number
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "as many outside the buffer" in labels
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "log", "linear"]


def test_a_table_over_scenarios(sweep):
    write_task_run(sweep, 0.0, incremental="task", shallow=0.05)
    table, caption = DRAWINGS["forgetting_table"].draw(load_runs([sweep]))
    assert caption is None
    heads = table[table.heads == "a head a task"]
    assert (list(heads.buffer_percent), list(heads.shallow), list(heads.seeds)) == (["0"], ["7.5"], [1])
    one = table[table.heads == "one head"].set_index("buffer_percent")
    assert list(one.index) == ["0", "1", "5", "100"]
    assert (one.shallow["1"], one.norm_ratio["1"]) == ("31.5 [30.0, 33.0]", "1.250")


def verdicts(root):
    """Claim -> its verdicts, in order of the settings."""
    found = {}
    for one in judge(load_ledger(find_wing("continual").ledger), load_runs([root])):
        if one.seeds:
            found.setdefault(one.claim.id, []).append(one.verdict)
    return found


def test_the_claims_hold_of_runs_that_are_as_the_paper_says_and_fail_of_others(tmp_path):
    """Every claim both ways, of runs whose numbers are made up."""
    for seed in range(5):
        part = 0.001 * seed  # so that seeds differ
        for buffer, shallow, deep, nc1 in (
            (0, 0.5, 0.1, 0),
            (0.01, 0.45, 0.02, 0.02),
            (0.05, 0.4, 0.02, 0.1),
            (0.1, 0.3, 0.02, 0.2),
            (1, 0.01, 0.01, 0.8),
        ):
            own = {"memory_nc1": nc1 + part, "past_snr": 1.0 + part if not buffer else 10 + part}
            write_task_run(tmp_path / "paper", buffer, seed, shallow - part, deep - part, **own)
            # As little forgotten without a buffer as with one, and a buffer like as many samples outside it: with few
            # of either NC1 is lower, and the means are longer, than of all.
            few = {"nc1": 0.8 * nc1 + 0.1, "norm_ratio": 2 - buffer}
            same = {f"memory_{name}": number + part for name, number in few.items()}
            same |= {f"control_{name}": number for name, number in few.items()} | {"past_snr": 5 - buffer + part}
            worse = {
                "shallow": (0.02 if 0 < buffer < 1 else 0.1) + part,
                "deep": 0.1 + part - 0.09 * (buffer == 1),
                "present": 0.9,
            }
            write_task_run(tmp_path / "other", buffer, seed, **worse, **same)
        for heads_root, shallow in (("paper", 0.1), ("other", 0.45)):
            for buffer in (0, 0.01, 0.05):
                write_task_run(tmp_path / heads_root, buffer, seed, shallow + part, 0.1, "task")
        write_task_run(tmp_path / "paper", None, seed)
    holds, fails = verdicts(tmp_path / "paper"), verdicts(tmp_path / "other")
    ids = {claim.id for claim in load_ledger(find_wing("continual").ledger)}
    assert holds.keys() == ids
    assert {verdict for found in holds.values() for verdict in found} == {"holds"}
    assert fails.keys() == ids - {"joint_is_the_bound"}
    assert {name for name, found in fails.items() if "holds" in found} == set()


@pytest.mark.parametrize("name", ["forgetting", "task_matrices", "buffer_collapse"])
def test_a_terminal_shows_the_numbers_of_a_figure(sweep, name):
    drawing = DRAWINGS[name]
    _, table = drawing.draw(load_runs([sweep]))
    assert "buffer" in text_table(drawing.says(table)).splitlines()[0]


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu_hour", "paper"])
def test_every_run_of_a_profile_fits_its_data(profile):
    """The end of every task is measured, images are large enough, and the classes fall into tasks."""
    shapes = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}
    parts = Plan(CONF, "continual").resolve([], profile, seeds=[0])
    built = set()
    for config in {config.folder: config for part in parts for config in part.configs}.values():
        if config.phases.name == "tasks":
            each = config.epochs // len(config.phases.groups(10, config.seed))
            assert each % config.metrics.every == 0
        shape = shapes.get(config.dataset.name, (1, 28, 28))
        if (repr(config.model), shape) not in built:
            built.add((repr(config.model), shape))
            with torch.device("meta"):
                MODELS[config.model.name].build(config.model, shape, 10)
