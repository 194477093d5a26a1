"""A user's program: `make lint` type-checks it with --strict, as the user's own checker would. It is not run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import nclab
from nclab.analysis import Run, load_runs
from nclab.data import Dataset, load_dataset
from nclab.etf import AdaptiveETF, FixedLinear, NearestETFHead, Switch, convert, fixed_layers, nearest_etf, simplex_etf
from nclab.metrics import CollapseMeter, ModelMeasures, effective_depth, effective_rank, measure, measure_model
from nclab.run.trained import load_trained

assert_type(nclab.__version__, str)


def own_model(model: nn.Module, batches: list[tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer) -> None:
    assert_type(convert(model, ["head"], frame="random", seed=0), list[Switch])
    assert_type(fixed_layers(model), dict[str, FixedLinear])
    adaptive = AdaptiveETF(model, stages=["body", "head"], patience=2)
    measures = assert_type(measure_model(model, batches, layers=["body", "head"], num_classes=10), ModelMeasures)
    for switch in adaptive.update(measures, optimizer, epoch=1):
        assert_type(switch.parameters_freed, int)
    assert_type(adaptive.state_dict(), dict[str, Any])
    adaptive.load_state_dict(adaptive.state_dict())


def at_hand(features: Tensor, labels: NDArray[Any]) -> Mapping[str, float]:
    assert_type(simplex_etf(10, 64), Tensor)
    assert_type(nearest_etf(features), tuple[Tensor, float])
    assert_type(NearestETFHead(64, 10)(features), Any)  # nn.Module says no more
    meter = CollapseMeter(num_classes=10)
    meter.add_means(features, labels)
    meter.add_spread(features, labels)
    assert_type(effective_depth([0.5, 0.99], 0.01), float)
    assert_type(effective_rank(features), float)
    assert_type(measure(features, labels, 10), dict[str, float])
    return meter.compute()


def runs_of_ours() -> None:
    model, dataset, config = load_trained(Path("outputs/first/run"))
    assert_type(model(dataset.inputs(dataset.train.samples)), Any)
    assert_type(config.seed, int)
    runs = assert_type(load_runs(["outputs"], where={"seed": 0}), list[Run])
    assert_type(runs[0].seed, int)
    assert_type(runs[0].config, dict[str, Any])
    assert_type(load_dataset("digits"), Dataset)
