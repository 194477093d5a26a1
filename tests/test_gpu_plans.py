"""What the plans would cost on a GPU: what is timed, what is not, and the sum."""

import pytest

from nclab.bench.gpu import plans, run_cost
from nclab.bench.gpu.row import FAILED, MISSED, NOT_TIMED, TOLD, Aim
from nclab.bench.gpu.stand_in import stand_in, train_size
from nclab.data import DATASETS


def test_a_plan_costs_its_steps_and_measurements(tiny):
    config = tiny("epochs=10", "metrics.every=4")
    assert run_cost.measurements(config) == 4  # untrained, 4, 8, 10
    assert run_cost.measurements(tiny("metrics.every=0")) == 1
    assert run_cost.Cost(0.5, 3, 10.0).run(config) == 10 * 3 * 0.5 + 4 * 10
    assert run_cost.steps_guessed(config) == 2  # 200 images in batches of 128
    assert run_cost.steps_guessed(tiny("batch_size=null")) == 1
    same, other = tiny("seed=3", "etf=last_k", "optimizer.lr=0.3"), tiny("model.width=25")
    assert run_cost.key_of(config) == run_cost.key_of(tiny("epochs=10", "metrics.every=2")) == run_cost.key_of(same)
    assert run_cost.key_of(other) != run_cost.key_of(config)


@pytest.mark.usefixtures("own_products")
def test_a_run_is_timed_as_it_would_train(tiny, monkeypatch):
    monkeypatch.setattr(run_cost, "LEAST", 0.01)
    cost = run_cost.cost_of(tiny("epochs=50", "dataset.train_size=300"), "cpu")
    assert cost.steps == 3
    assert 0 < cost.step < 1
    assert 0 < cost.measurement < 5
    few = run_cost.cost_of(tiny("epochs=1", "metrics.every=0"), "cpu")  # over before the clock would start
    assert few.steps == 2
    assert few.step > 0


def test_the_time_of_a_step_is_that_between_looks(monkeypatch):
    """A fit whose steps take a second each of a false clock."""
    now = [0.0]
    monkeypatch.setattr(run_cost.time, "perf_counter", lambda: now[0])

    class Slow:
        epochs = 3
        progress = type("P", (), {"epoch": 0, "part": None, "steps": 0})()

        def begin_epoch(self) -> None:
            now[0] += 10  # beside the steps

        def train_epoch(self) -> None:
            for _ in range(20):
                self.check()
                now[0] += 1
                self.progress.part.batches += 1

    assert run_cost.step_seconds(Slow(), "cpu", least=5) == 1
    assert run_cost.step_seconds(Slow(), "cpu", least=1e9) == (60 - 4 + 20) / 56


def test_what_was_not_timed_is_taken_to_be_as_dear(tiny):
    known, unknown = tiny("epochs=10"), tiny("epochs=30", "model.width=25")
    mine = plans.Runs([known, unknown])
    assert mine.guessed == {run_cost.key_of(known): 0.25, run_cost.key_of(unknown): 0.75}
    aim = Aim("a plan", "h", most=1)
    row = plans.extrapolated(aim, mine, plans.Costs({run_cost.key_of(known): run_cost.Cost(90.0, 2, 0.0)}))
    assert row.number == 10 * 2 * 90 / 0.25 / 3600
    assert row.verdict == MISSED
    assert "25% of the steps are of timed kinds" in row.value
    assert plans.extrapolated(aim, mine, plans.Costs()).verdict == NOT_TIMED


def test_the_kinds_with_most_steps_are_timed_first_until_the_time_is_over(tiny, monkeypatch):
    configs = [tiny("epochs=10"), tiny("epochs=30", "model.width=25"), tiny("epochs=20", "model.width=26")]
    now, order = [0.0], []

    def cost_of(config, device):
        order.append(config.model.width)
        now[0] += 10
        return run_cost.Cost(1.0, 1, 0.0)

    monkeypatch.setattr(plans, "cost_of", cost_of)
    monkeypatch.setattr(plans.time, "monotonic", lambda: now[0])
    assert [len(costs.of) for costs in plans.timed([plans.Runs(configs)], "cpu", 15.0)] == [1, 2]
    assert order == [25, 26]


def test_a_kind_of_run_that_cannot_be_timed_fails_its_plans_alone(tiny, monkeypatch, capsys):
    good, bad = tiny(), tiny("model.width=25")

    def cost_of(config, device):
        if config.model.width == 25:
            raise RuntimeError("CUDA error: out of memory\nmore")
        return run_cost.Cost(1.0, 1, 0.0)

    monkeypatch.setattr(plans, "cost_of", cost_of)
    *_, costs = plans.timed([plans.Runs([good]), plans.Runs([good, bad])], "cuda", float("inf"))
    assert plans.extrapolated(Aim("a", "h"), plans.Runs([good]), costs).verdict == TOLD
    row = plans.extrapolated(Aim("a", "h"), plans.Runs([good, bad]), costs)
    assert (row.verdict, row.value) == (FAILED, "mlp4x25 on digits: RuntimeError: CUDA error: out of memory")
    assert "Traceback" in capsys.readouterr().err


def test_rows_come_after_every_kind_within_the_time_that_is_given(tiny, monkeypatch):
    known, unknown = Aim("known", "h"), Aim("unknown", "h")
    of_plans = {"a": plans.Runs([tiny()]), "b": plans.Runs([tiny("model.width=25")])}
    monkeypatch.setattr(plans, "AIMS", {"a": known, "b": unknown})
    monkeypatch.setattr(plans, "runs_of_all", lambda: of_plans)
    now = [0.0]
    monkeypatch.setattr(plans.time, "monotonic", lambda: now[0])

    def cost_of(config, device):
        now[0] += 10
        return run_cost.Cost(1.0, 1, 0.0)

    monkeypatch.setattr(plans, "cost_of", cost_of)

    def verdicts(seconds):
        return [[row.verdict for row in rows] for rows in plans.measure("cuda", seconds)]

    assert verdicts(plans.STARTING + 15) == [[TOLD, NOT_TIMED], [TOLD, TOLD], [TOLD, TOLD]]
    assert verdicts(plans.STARTING + 5) == [[TOLD, NOT_TIMED], [TOLD, NOT_TIMED]]
    assert verdicts(plans.STARTING) == [[NOT_TIMED, NOT_TIMED]]


def test_a_short_measurement_is_timed_warm(monkeypatch):
    for took, expected in (([2.0, 0.5], 0.5), ([30.0], 30.0)):
        spent = iter(took)
        monkeypatch.setattr(run_cost, "seconds", lambda call, device, spent=spent: next(spent))
        assert run_cost.warm_seconds(lambda: None, "cuda") == expected
        assert [*spent] == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, {}) for name in ("digits", "diabetes", "linnerud", "phrases", "mnist5k")),
        ("free_features", {"per_class": 7, "imbalance": 3}),
        ("free_values", {"samples": 12}),
        ("teacher", {"samples": 30}),
        ("etf_features", {"per_class": 7}),
    ],
)
def test_the_size_that_is_guessed_is_that_of_the_dataset(tmp_path, name, values):
    entry = DATASETS[name]
    settings = entry.settings(name=name, **values)
    assert train_size(settings) == len(entry.build(settings, tmp_path).train)


@pytest.mark.parametrize(
    ("words", "shape", "train"),
    [
        (("dataset=imdb", "model=tf", "dataset.train_size=50", "dataset.test_size=50"), (256, 10_000), 50),
        (("dataset=mnist", "dataset.train_size=500"), (1, 28, 28), 500),
    ],
)
def test_noise_stands_in_for_files(tiny, words, shape, train):
    data = stand_in(tiny(*words), "cpu")
    assert tuple(data.shape) == shape
    assert len(data.train) == train
