"""From runs to the numbers behind a picture: means over seeds, and the epochs at which layers were fixed."""

import pandas as pd

from nclab.analysis.runs import AnalysisError, Run

NETWORK = "network"  # the layer name under which whole-network scalars are recorded


def curves(runs: list[Run], layers: list[str] | None = None) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds: policy, split, layer, epoch, mean, std, n.

    `layers` (default: the stages of the runs) carry their NCC accuracy, the layer 'network' the accuracy of the
    network's own decision. With one seed std is nan; an undefined measurement does not count towards n.
    """
    if layers is None:
        layers = list(dict.fromkeys(layer for run in runs for layer in run.stages))
    parts = []
    for run in runs:
        rows, file = run.metrics, run.path / "metrics.csv"
        ncc = rows[(rows.metric == "ncc_accuracy") & rows.layer.isin(layers)]
        network = rows[(rows.metric == "accuracy") & (rows.layer == NETWORK)]
        if layers and ncc.empty:
            raise AnalysisError(f"{file}: no ncc_accuracy of {', '.join(layers)}; metrics.every=0 measures none")
        for split in ("train", "test"):
            if not (network.split == split).any():
                raise AnalysisError(f"{file}: no {split} accuracy of the network")
        parts += [part.assign(policy=run.policy).astype({"split": str, "layer": str}) for part in (ncc, network)]
    keys = ["policy", "split", "layer", "epoch"]
    table = pd.concat(parts).groupby(keys)["value"].agg(["mean", "std", "count"]).reset_index()
    rank = {name: i for i, name in enumerate(["train", "test", *layers, NETWORK])}
    policies = {name: i for i, name in enumerate(dict.fromkeys(run.policy for run in runs))}
    order = {"policy": policies, "split": rank, "layer": rank}
    table = table.sort_values(
        keys, key=lambda column: column.map(order[column.name]) if column.name in order else column
    )
    return table.rename(columns={"count": "n"}).reset_index(drop=True)


def switches(runs: list[Run]) -> pd.DataFrame:
    """Every layer fixed in every run: policy, seed, site, layer, stage, epoch; epoch 0 is before training.

    layer is the map's own probe, stage the layer that ends its step of depth: fc4 of an MLP is both; of a ViT the
    map block1.ffn_in has a probe of that name and belongs to the stage block1.
    """
    rows = []
    for run in runs:
        for event in run.events:
            if event.get("event") == "switch":
                if lacking := {"site", "layer", "epoch"} - event.keys():
                    raise AnalysisError(f"{run.path / 'events.jsonl'}: a switch without {', '.join(sorted(lacking))}")
                stage = next((layer["layer"] for layer in run.layers if event["site"] in (layer["stage"] or [])), None)
                rows.append((run.policy, run.seed, event["site"], event["layer"], stage, event["epoch"]))
    return pd.DataFrame(rows, columns=["policy", "seed", "site", "layer", "stage", "epoch"])


def fixed_since(runs: list[Run]) -> dict[tuple[str, str], int]:
    """(policy, layer) -> the epoch from which on the layer is fixed in every seed; absent if it never is.

    A stage is fixed when all its maps are, a layer that is one map's output when that map is.
    """
    since: dict[tuple[str, str], list[int | None]] = {}
    for run in runs:
        fixed = {event["site"]: event["epoch"] for event in run.events if event.get("event") == "switch"}
        for layer in run.layers:
            maps = layer["stage"] or ([layer["site"]] if layer["site"] else [])
            whole = bool(maps) and all(site in fixed for site in maps)
            last = max(fixed[site] for site in maps) if whole else None
            since.setdefault((run.policy, layer["layer"]), []).append(last)
    return {key: max(epochs) for key, epochs in since.items() if None not in epochs}


def brief(table: pd.DataFrame, across: str = "layer") -> pd.DataFrame:
    """The last epoch of `curves` for a terminal, mean ± std: a row a policy and split, a column a layer.

    `across="split"` makes a row a layer and a column a split. A column `blocks` (of Figures 3 and 4) tells rows
    apart as the policy does.
    """
    runs = [name for name in ("blocks", "policy") if name in table]
    last = table[table.epoch == table.groupby(runs).epoch.transform("max")]
    lead = [*runs, "split" if across == "layer" else "layer"]
    rows = {}
    for row in last.to_dict("records"):
        spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.3f}"
        cells = rows.setdefault(tuple(row[name] for name in lead), {name: str(row[name]) for name in lead})
        cells |= {"epoch": str(row["epoch"]), row[across]: f"{row['mean']:.3f}{spread}"}
    return pd.DataFrame(rows.values()).fillna("-")
