"""optimizer=lbfgs: whole batches, the penalty inside what the line search sees, a state that comes back to the bit."""

import numpy as np
import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, flat, killed_after, rows
from scipy.optimize import minimize

from nclab.config.checks import UnknownKey
from nclab.config.schema import ConfigError, RunConfig
from nclab.etf.policies.none import NoPolicy
from nclab.models.unconstrained import Unconstrained
from nclab.parallel.group import ProcessGroup
from nclab.run.build import fit_for_several
from nclab.run.execute import check, train, train_seeds
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.training import seeds as training_seeds
from nclab.training.fit import Diverged
from nclab.training.optim import LBFGSSettings, lbfgs, optimizer_bytes
from nclab.training.seeds import _kind

LBFGS = ("optimizer=lbfgs", "batch_size=null", "threads=1", "checkpoint_seconds=0", "precision=float64")
CONVEX = ("dataset=etf_features", "dataset.classes=3", "dataset.dim=4", "dataset.per_class=5", "dataset.noise=0.5",
          "model=linear", "model.bias=true", "loss.l2=0.1", "loss.l2_biases=0.02", *LBFGS)  # fmt: skip
UFM = ("dataset=free_features", "dataset.classes=3", "dataset.per_class=4", "model=unconstrained", "model.dim=5",
       "loss.l2=0.01", *LBFGS)  # fmt: skip
TO_ROUNDING = ("optimizer.tolerance_grad=0", "optimizer.tolerance_change=0")


def test_a_convex_problem_ends_where_scipy_ends(tmp_path):
    folder = train(composed(*CONVEX, "epochs=15", *TO_ROUNDING, f"output_root={tmp_path}"))
    model, dataset, _ = load_trained(folder)
    x, y = dataset.train.samples.numpy(), dataset.train.targets.numpy()

    def objective(theta):
        w, b = theta[:12].reshape(3, 4), theta[12:]
        z = x @ w.T + b
        z -= z.max(1, keepdims=True)
        losses = np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]
        return losses.mean() + 0.05 * (w**2).sum() + 0.01 * (b**2).sum()

    best = minimize(objective, np.zeros(15), method="BFGS", options={"gtol": 1e-9})
    last = {r[3]: r[4] for r in rows(folder) if r[0] == 15 and r[1:3] == ("train", "network")}
    assert last["objective"] == pytest.approx(best.fun, rel=1e-11)
    np.testing.assert_allclose(model.head.weight.detach(), best.x[:12].reshape(3, 4), atol=1e-5)


def test_the_loss_of_an_epoch_is_that_before_its_steps_without_the_penalty(tmp_path):
    folder = train(composed(*UFM, "epochs=3", f"output_root={tmp_path}"))
    logged = {(r[0], r[3]): r[4] for r in rows(folder) if r[1:3] == ("train", "network")}
    for epoch in range(3):
        assert logged[epoch + 1, "running_loss"] == pytest.approx(logged[epoch, "loss"], rel=1e-13)
        assert logged[epoch + 1, "objective"] <= logged[epoch, "objective"]
    assert logged[3, "objective"] < 0.5 * logged[0, "objective"]


@pytest.mark.parametrize("keys", [(), ("sampler=repeated", "sampler.repeats=3", "etf=last_k", "etf.k=1")])
def test_a_run_is_resumed_to_the_bit(tmp_path, keys):
    """Its state are lists of tensors, numbers and None."""
    keys = (*UFM, *keys, "epochs=6", "optimizer.max_iter=1", "optimizer.history_size=2", "schedule=cosine")
    killed = killed_after(3, composed(*keys, f"output_root={tmp_path}/cut"))
    (state,) = checkpoint.load(killed)["optimizer"]["state"].values()
    assert len(state["old_dirs"]) == 2
    resumed = train(RunConfig(resume=str(killed)))
    assert_same_run(resumed, train(composed(*keys, f"output_root={tmp_path}/whole")))
    before, after = ([r[4] for r in rows(resumed) if r[0] == e and r[3] == "objective"] for e in (3, 6))
    assert after < before


def test_seeds_train_in_turns_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(training_seeds, "LEAST_SEEDS_ON_CPU", 2)
    configs = [composed(*UFM, "epochs=3", f"output_root={tmp_path}/a").of_seed(seed) for seed in (0, 1)]
    assert list(train_seeds(configs).values()) == [None, None]
    for config in configs:
        alone = train(composed(*UFM, "epochs=3", f"seed={config.seed}", f"output_root={tmp_path}/b"))
        assert_same_run(config.folder, alone)
        assert '"seeds"' not in (config.folder / "events.jsonl").read_text()


def test_a_state_of_lists_is_counted_and_never_stacked():
    weight = torch.ones(10, 10, requires_grad=True)
    optimizer = lbfgs(LBFGSSettings(max_iter=3), [weight])

    def objective():
        weight.grad = None
        loss = weight.pow(4).sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    (state,) = optimizer.state.values()
    held = 2 * len(state["old_dirs"]) + 2  # directions and steps, d and the last gradient
    assert len(state["old_dirs"]) == 2
    assert 400 * held <= optimizer_bytes(optimizer) < 400 * (held + 1)
    assert _kind("old_dirs", state["old_dirs"], weight) is None
    assert _kind("n_iter", state["n_iter"], weight) == "3"


def test_the_line_search_is_not_cut_at_one_iteration_a_step():
    """torch's own bound on evaluations would be one."""
    (group,) = lbfgs(LBFGSSettings(max_iter=1), [torch.ones(2, requires_grad=True)]).param_groups
    assert group["max_eval"] >= 25
    assert group["line_search_fn"] == "strong_wolfe"


def test_a_loss_that_is_no_number_ends_the_run_before_a_step(tmp_path, monkeypatch):
    forward = Unconstrained.forward

    def broken(self, x):
        out = forward(self, x)
        return out._replace(prediction=out.prediction * float("nan")) if self.training else out

    config = composed(*UFM, "epochs=3", f"output_root={tmp_path}")
    monkeypatch.setattr(Unconstrained, "forward", broken)
    with pytest.raises(Diverged, match=r"diverged in epoch 1 .*loss nan"):
        train(config)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("batch_size=5",), "optimizer=lbfgs takes the whole train split at every step: .*null or 12, got 5"),
        (
            ("etf=clock", "epochs=9", "model.depth=3"),
            "optimizer=lbfgs .*expected a policy that neither switches layers nor acts in a step, such as none or "
            "last_k; got etf=clock",
        ),
        (("etf=adaptive", "epochs=60", "model.depth=3"), "got etf=adaptive"),
        (("etf=nearest", "model.dim=8"), "nor acts in a step, such as none or last_k; got etf=nearest"),
        (("optimizer.max_iter=0",), "optimizer.max_iter must be at least 1"),
        (("optimizer.history_size=0",), "optimizer.history_size must be at least 1"),
        (("optimizer.tolerance_grad=-1",), "optimizer.tolerance_grad must be at least 0"),
        (("optimizer.tolerance_change=nan",), "optimizer.tolerance_change must be at least 0"),
        (("optimizer.lr=0",), "optimizer.lr must be above 0"),
    ],
)
def test_what_it_cannot_do_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        check([composed(*UFM, *keys)])


def test_a_policy_that_acts_after_a_step_is_refused(monkeypatch):
    monkeypatch.setattr(NoPolicy, "after_step", lambda self, model, batch, out, step: None, raising=False)
    with pytest.raises(ConfigError, match="nor acts in a step"):
        check([composed(*UFM)])


def test_it_has_no_weight_decay():
    with pytest.raises(UnknownKey, match=r"'optimizer.weight_decay' of optimizer=lbfgs; choose one of .*adamw, sgd"):
        composed(*UFM, "+optimizer.weight_decay=0.1")


def test_several_processes_are_refused():
    with pytest.raises(ConfigError, match="optimizer=lbfgs trains with one process, got 2"):
        fit_for_several(composed(*UFM), ProcessGroup(0, 2))


def test_flat_tells_states_apart():
    """What the comparisons of this file stand on."""
    assert flat({"d": [torch.ones(1), None]}) != flat({"d": [torch.zeros(1), None]})
