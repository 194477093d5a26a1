"""Run folders as training writes them, without training: realistic curves, for the tests of the analysis; and
claims judged by them."""

import json
import zlib

import numpy as np
import yaml

from nclab.analysis.claims import judge
from nclab.analysis.ledger import Claim
from nclab.analysis.runs import load_runs
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.verdict import KINDS

BASELINE = {"name": "none"}
ADAPTIVE = {"name": "adaptive", "kind": "etf", "frame": "nearest", "classifier_frame": "nearest", "threshold": 0.9}
ADAPTIVE |= {"relative": True, "order": "deepest_first"}
FFN = {"name": "transformer_ffn", "kind": "etf", "blocks": "all", "classifier": False, "frame": "random"}
FFN |= {"rank": "full", "in_scale": None, "out_scale": None, "bias": True}
MLP = {"name": "mlp", "depth": 5, "width": 400}
VIT = {"name": "vit", "patch": 4, "width": 64, "blocks": 2, "ratio": 4.0, "ffn_norm": "none"}


def last(k, **settings):
    frames = {"frame": "random", "classifier_frame": "random", "rank": "full"}
    return {"name": "last_k", "kind": "etf", "k": k} | frames | settings


def vit(blocks, ratio=4.0):
    return VIT | {"blocks": blocks, "ratio": ratio}


def mlp_layers(depth, probe):
    stem = {"linear": "fc", "activation": "act"}[probe]
    layers = [_layer(f"{stem}{i}", "hidden", f"fc{i}", [f"fc{i}"]) for i in range(1, depth)]
    if probe == "linear":
        layers.append(_layer(f"act{depth - 1}", "classifier_input"))
    return [*layers, _layer(f"fc{depth}", "classifier", f"fc{depth}", [f"fc{depth}"])]


def vit_layers(blocks, ratio):
    layers = []
    for block in (f"block{i}" for i in range(1, blocks + 1)):
        sites = [f"{block}.ffn_in", f"{block}.ffn_out"] if ratio else []
        layers.append(_layer(f"{block}.attn", "attention"))
        layers += [_layer(site, site.split(".")[1], site) for site in sites]
        layers.append(_layer(block, "block", None, sites))
    return [*layers, _layer("norm", "classifier_input"), _layer("head", "classifier", "head", ["head"])]


def _layer(layer, role, site=None, stage=None):
    return {"layer": layer, "role": role, "site": site, "stage": stage}


def sites_of(etf, layers):
    """The maps that a policy fixes before training, as training would choose them."""
    maps = [layer["site"] for layer in layers if layer["site"]]
    if etf["name"] == "last_k":
        return maps[-etf["k"] :]
    if etf["name"] == "transformer_ffn":
        count = sum(layer["role"] == "block" for layer in layers)
        blocks = {"all": range(1, count + 1), "last1": [count], "first2": [1, 2]}.get(etf["blocks"], etf["blocks"])
        chosen = [site for site in maps if any(site.startswith(f"block{block}.") for block in blocks)]
        return chosen + ["head"] * etf["classifier"]
    return []


def parameters(model, sites):
    """Learnable and all parameters of a fake network, 100 of them in each of the fixed maps."""
    total = 1000 if model["name"] == "mlp" else 400 + (400 if model["ratio"] else 200) * model["blocks"]
    return total - 100 * len(sites), total


def write_run(
    root,
    etf=BASELINE,
    seed=0,
    epochs=20,
    done=True,
    experiment="exp",
    every=1,
    probe="linear",
    fix=(),
    model=MLP,
    **settings,
):
    """A run folder; `fix` lists (epoch, site) of an adaptive policy, `settings` replaces top-level keys."""
    config = {
        "experiment_name": experiment,
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": "digits", "train_size": None},
        "model": model,
        "optimizer": {"name": "sgd", "lr": 0.01},
        "schedule": {"name": "cosine"},
        "metrics": {"every": every, "probe": probe},
        "etf": etf,
    } | settings
    layers = (
        mlp_layers(model["depth"], probe) if model["name"] == "mlp" else vit_layers(model["blocks"], model["ratio"])
    )
    fix = list(fix) or [(0, site) for site in sites_of(etf, layers)]
    text = yaml.safe_dump(config)
    folder = root / experiment / f"{etf['name']}-s{seed}-x{zlib.crc32(text.encode()):08x}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    (folder / "metrics.csv").write_text("\n".join(metrics(config, layers, fix)) + "\n")
    names = {layer["site"]: layer["layer"] for layer in layers}
    events = [{"event": "start", "epoch": 0, "layers": layers}]
    events += [{"event": "switch", "epoch": e, "site": s, "layer": names[s], "parameters_freed": 9} for e, s in fix]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if done:
        final = {split: {"accuracy": 0.9 + 0.01 * seed, "loss": 0.3} for split in ("train", "test")}
        learnable, total = parameters(model, fix)
        summary = {
            "seed": seed,
            "final": final | {"effective_depth": 3 if seed else None},
            "parameters_learnable": learnable,
            "parameters_total": total,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "DONE").touch()
    return folder


def metrics(config, layers, fix):
    """Lines of metrics.csv: curves that rise, later layers higher, with a dip behind every switch while training."""
    etf, epochs, every = config["etf"], config["epochs"], config["metrics"]["every"]
    rng = np.random.default_rng([config["seed"], epochs, zlib.crc32(repr((etf, config["model"])).encode())])
    time = np.arange(epochs + 1)
    lines = ["epoch,split,layer,metric,value"]
    order = {layer["site"]: i for i, layer in enumerate(layers)}
    for split, top in (("train", 0.995), ("test", 0.89)):
        top -= 0.02 * (etf["name"] == "transformer_ffn") * (2 if etf.get("kind") == "frozen" else 1)
        for i, layer in enumerate(layers):
            below = (len(layers) - 1 - i) / (len(layers) - 1)
            end = top - 0.35 * below * (0.6 if split == "train" else 0.5)
            if layer["role"] == "attention":
                end -= 0.1
            values = end - (end - 0.55) * np.exp(-8 * time / epochs) + rng.normal(0, 0.004, epochs + 1)
            for at, site in fix:
                dip = 0.06 * np.exp(-(time - at) / 2)
                values = values - (dip * (time > at) if at and order[site] <= i else 0)
            for metric, column in (("ncc_accuracy", values), ("nc1", 1 / (1 + time)), ("nc3", 0 * time + np.nan)):
                lines += _lines(column, split, layer["layer"], metric, every)
        accuracy = top - (top - 0.1) * np.exp(-14 * time / epochs) + rng.normal(0, 0.004, epochs + 1)
        lines += _lines(accuracy, split, "network", "accuracy", every)
    return lines


def _lines(values, split, layer, metric, every):
    return [f"{e},{split},{layer},{metric},{min(v, 1):.6f}" for e, v in enumerate(values) if every and e % every == 0]


def edit(folder, **entries):
    """Set entries of a fake run's summary.json: test=0.9 and train=0.9 are accuracies, the rest as named."""
    file = folder / "summary.json"
    summary = json.loads(file.read_text())
    for split in ("test", "train"):
        if split in entries:
            summary["final"][split]["accuracy"] = entries.pop(split)
    if "effective_depth" in entries:
        summary["final"]["effective_depth"] = entries.pop("effective_depth")
    file.write_text(json.dumps(summary | entries))
    return folder


def set_ncc(folder, ncc):
    """Replace metrics.csv: {epoch: {layer: train NCC accuracy}}."""
    lines = [f"{e},train,{layer},ncc_accuracy,{v}" for e, layers in ncc.items() for layer, v in layers.items()]
    (folder / "metrics.csv").write_text("\n".join(["epoch,split,layer,metric,value", *lines]) + "\n")
    return folder


def diverge(root, etf=BASELINE, seed=0, *later, **settings):
    """A run that ended in numbers that are none; `later` are events after that."""
    folder = write_run(root, etf, seed, done=False, **settings)
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps({"event": event}) + "\n" for event in ("diverged", *later))
    return folder


def write_experiment(root):
    """Baseline, last 1, 2, 3 in `exp` and Adaptive-ETF in `adaptive`, with three seeds each."""
    for seed in range(3):
        for etf in (BASELINE, last(1), last(2), last(3)):
            write_run(root, etf, seed)
        fix = [(7 + seed, "fc5"), (9 + seed, "fc4")] + [(14, "fc3")] * (seed > 0)
        write_run(root, ADAPTIVE, seed, experiment="adaptive", fix=fix)
    return root


def write_transformers(root, depths=(1, 2, 3, 4), seeds=(0, 1), etfs=(BASELINE, FFN), **settings):
    """Vision transformers: every depth with every policy and seed."""
    for blocks in depths:
        for seed in seeds:
            for etf in etfs:
                write_run(root, etf, seed, model=vit(blocks), **settings)
    return root


def claim(kind="not_lower", statistic="test_accuracy", treatment=None, baseline=None, **more):
    treatment = treatment or {"etf.name": "last_k"}
    if KINDS[kind].paired:
        baseline = baseline or {"etf.name": "none"}
        more = {"margin": 0.5} | more
    return Claim("c", "text", "source", STATISTICS[statistic], kind, treatment, baseline, **more)


def pair(root, accuracies, **settings):
    """Baseline and last 1 ETF with test accuracies in percent, {seed: (treatment, baseline)}; None: no such run."""
    for seed, (treatment, baseline) in accuracies.items():
        for etf, value in ((last(1), treatment), (BASELINE, baseline)):
            if value is not None:
                edit(write_run(root, etf, seed, **settings), test=value / 100)


def judged(root, *claims):
    return judge(claims, load_runs([root], finished_only=False))
