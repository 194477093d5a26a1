"""From runs to the numbers behind a picture: means over seeds, and the epochs at which layers were fixed."""

import pandas as pd

from nclab.analysis.runs import AnalysisError, Run

NETWORK = "network"  # the layer name under which whole-network scalars are recorded


def plotted_layers(run: Run) -> list[str]:
    """Probe points with an NCC accuracy, input to output, one a linear map.

    Where the map fc4 is probed at its output and once more behind its activation (act4, the classifier's
    input), the map's own output is the one shown.
    """
    layers = list(run.metrics.layer[run.metrics.metric == "ncc_accuracy"].unique())  # in order of appearance
    if not layers:
        raise AnalysisError(f"{run.path / 'metrics.csv'}: no ncc_accuracy; metrics.every=0 measures accuracy alone")
    return [layer for layer in layers if layer == (own := layer.replace("act", "fc", 1)) or own not in layers]


def curves(runs: list[Run]) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds: policy, split, layer, epoch, mean, std, n.

    Layers carry their NCC accuracy, the layer 'network' the accuracy of the network's own decision. With one
    seed std is nan; an undefined measurement does not count towards n.
    """
    parts, layers = [], {}
    for run in runs:
        layers |= dict.fromkeys(plotted_layers(run))
        rows, metric = run.metrics, run.metrics.metric
        rows = rows[
            ((metric == "ncc_accuracy") & rows.layer.isin(list(layers)))
            | ((metric == "accuracy") & (rows.layer == NETWORK))
        ]
        for split in ("train", "test"):
            if not ((rows.split == split) & (rows.layer == NETWORK)).any():
                raise AnalysisError(f"{run.path / 'metrics.csv'}: no {split} accuracy of the network")
        parts.append(rows.assign(policy=run.policy).astype({"split": str, "layer": str}))
    keys = ["policy", "split", "layer", "epoch"]
    table = pd.concat(parts).groupby(keys)["value"].agg(["mean", "std", "count"]).reset_index()
    rank = {name: i for i, name in enumerate(["train", "test", *layers, NETWORK])}
    policies = {name: i for i, name in enumerate(dict.fromkeys(run.policy for run in runs))}
    order = {"policy": policies, "split": rank, "layer": rank}
    table = table.sort_values(
        keys, key=lambda column: column.map(order[column.name]) if column.name in order else column
    )
    return table.rename(columns={"count": "n"}).reset_index(drop=True)


def switches(runs: list[Run], layers: list[str]) -> pd.DataFrame:
    """Every layer fixed in every run: policy, seed, layer (as plotted), epoch; epoch 0 is before training."""
    rows = []
    for run in runs:
        for event in run.events:
            if event.get("event") == "switch":
                if not {"site", "epoch"} <= event.keys():
                    raise AnalysisError(f"{run.path / 'events.jsonl'}: a switch without site or epoch")
                site = event["site"]
                layer = site if site in layers else site.replace("fc", "act", 1)
                rows.append((run.policy, run.seed, layer, event["epoch"]))
    return pd.DataFrame(rows, columns=["policy", "seed", "layer", "epoch"])


def fixed_since(switched: pd.DataFrame, runs: list[Run]) -> dict[tuple[str, str], int]:
    """(policy, layer) -> the epoch from which on the layer is fixed in every seed; absent if it never is."""
    seeds = pd.Series([run.policy for run in runs]).value_counts()
    groups = switched.groupby(["policy", "layer"])
    return {key: int(group.epoch.max()) for key, group in groups if group.seed.nunique() == seeds.get(key[0], 0)}


def brief(table: pd.DataFrame) -> pd.DataFrame:
    """The last epoch of `curves` for a terminal: one row a policy and split, one column a layer, mean ± std."""
    last = table[table.epoch == table.groupby("policy").epoch.transform("max")]
    rows = {}
    for row in last.itertuples():
        spread = "" if pd.isna(row.std) else f" ± {row.std:.3f}"
        cells = rows.setdefault((row.policy, row.split), {"policy": row.policy, "split": row.split})
        cells |= {"epoch": str(row.epoch), row.layer: f"{row.mean:.3f}{spread}"}
    return pd.DataFrame(rows.values()).fillna("-")
