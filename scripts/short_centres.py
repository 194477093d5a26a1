"""Class sums divided by N instead of n_c: what that does to the NCC accuracy of one trained network.

    python scripts/short_centres.py outputs/figure1/RUN --out outputs/figures/short_centres

The paper's line of code divides every class sum by the number of all samples, so that its centres are C times too
short, and measures the test split against the test split's own centres. This puts both definitions side by side on
one network: true centres, and the short ones that explain the falling lower curves of those plots.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from nclab.run.trained import load_trained
from nclab.runfolder.folder import RecordError
from nclab.training.evaluate import Pass


def ncc_accuracy(features: Tensor, labels: Tensor, centres: Tensor) -> float:
    """Share of features (N, d) whose nearest of the centres (C, d) has their label; float64, by definition."""
    return (torch.cdist(features, centres).argmin(1) == labels).double().mean().item()


def compare(folder: Path) -> pd.DataFrame:
    """One row a layer: train and test NCC accuracy with true and with short centres."""
    model, dataset, config = load_trained(folder)
    probes = {p.layer: p.feature for p in model.probes(config.metrics.probe) if p.stage is not None}
    collected = {}
    for split, part in dataset.splits.items():
        batches = [f for f, *_ in Pass(model, dataset, part, config.metrics.batch_size)]
        collected[split] = {p: torch.cat([f[p] for f in batches]).double() for p in probes.values()}, part.targets
    rows = []
    for layer, probe in probes.items():
        row = {"layer": layer}
        true_train = None
        for split, (features, labels) in collected.items():
            h, classes = features[probe], range(dataset.targets.count)
            sums = torch.stack([h[labels == c].sum(0) for c in classes])  # (C, d)
            true = sums / torch.bincount(labels)[:, None]
            true_train = true if true_train is None else true_train
            row[f"{split}_true"] = ncc_accuracy(h, labels, true_train)
            row[f"{split}_short"] = ncc_accuracy(h, labels, sums / len(labels))
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--out", type=Path, help="path of the CSV, without its ending")
    arguments = parser.parse_args()
    try:
        table = compare(arguments.run)
    except (RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.out.with_suffix(".csv"), index=False)
        print(arguments.out.with_suffix(".csv"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
