"""Run folders of a depth study as training writes them; their numbers follow a power law in the number of blocks."""

import json
import math
import zlib

import numpy as np
import yaml

RN1 = {"name": "rn", "maps": 1, "width": 64, "head_bias": True}
RN2 = RN1 | {"maps": 2}
T11 = {"name": "tf", "attention_maps": 1, "mlp_maps": 1, "norm": "post", "width": 64, "head_bias": True}
CE = {"name": "cross_entropy", "l2": 0.005, "l2_skip": "none"}
MSE = CE | {"name": "mse"}
DEPTHS = (2, 3, 5, 8, 13, 21, 34)
COEFFICIENTS = {"nc1_trace_ratio": 1.2, "nc2_weight_gram": 0.5, "nc3_cosine": 0.3}


def write_depth_run(
    root,
    blocks,
    seed=0,
    slope=-1 / 3,
    model=RN1,
    loss=CE,
    experiment="depth_rn1",
    noise=0.0,
    accuracy=0.99,
    end=None,
    epochs=100,
    done=True,
    lacking=(),
    change=0.02,
    measured=(0.5, 0.9),
    **settings,
):
    """A run folder. At the classifier's input every metric m of COEFFICIENTS is a_m blocks^slope, times noise.

    `end` replaces metrics of the classifier's input, `lacking` names metrics that were not written; loss=None is a
    folder of before there was a choice of losses. The objective falls to its last value from 1 + `change` times that,
    which it has at the shares `measured` of training.
    """
    config = {
        "experiment_name": experiment,
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": "mnist", "train_size": 5000},
        "model": model | {"blocks": blocks},
        "optimizer": {"name": "sgd", "lr": 0.005},
        "metrics": {"every": 50},
        "etf": {"name": "none"},
    } | settings
    if loss:
        config["loss"] = loss
    layers = _layers(config["model"])
    rng = np.random.default_rng([seed, blocks, zlib.crc32(experiment.encode())])
    last = {m: a * blocks**slope * 10 ** rng.normal(0, noise) for m, a in COEFFICIENTS.items()}
    last |= {"nc1": 9 * last["nc1_trace_ratio"], "nc2_weight_orthogonal": 0.32 + 0.1 / blocks, "ncc_accuracy": accuracy}
    last |= end or {}
    text = yaml.safe_dump(config)
    folder = root / experiment / f"L{blocks}-s{seed}-x{zlib.crc32(text.encode()):08x}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    (folder / "events.jsonl").write_text(json.dumps({"event": "start", "epoch": 0, "layers": layers}) + "\n")
    lines = ["epoch,split,layer,metric,value"]
    for epoch in (*(round(share * epochs) for share in measured), epochs):
        worse = 1.0 if epoch == epochs else 3.0
        for split in ("train", "test"):
            for layer in layers:
                values = _at(layer["layer"], blocks, last, worse)
                lines += [f"{epoch},{split},{layer['layer']},{m},{v!r}" for m, v in values.items() if m not in lacking]
            network = {"accuracy": accuracy - 0.02 * (split == "test"), "loss": 0.1}
            if split == "train":
                network["l2_penalty"] = 0.2 * blocks**0.1
                network["loss"] += change * (0.1 + network["l2_penalty"]) * (epoch != epochs)
            lines += [f"{epoch},{split},network,{m},{v!r}" for m, v in network.items() if m not in lacking]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    if done:
        final = {"train": {"accuracy": accuracy}, "test": {"accuracy": accuracy - 0.02}, "effective_depth": None}
        counts = {"parameters_learnable": 100 * blocks, "parameters_total": 100 * blocks}
        (folder / "summary.json").write_text(json.dumps({"seed": seed, "final": final} | counts))
        (folder / "DONE").touch()
    return folder


def write_series(root, depths=(2, 5, 13), seeds=(0, 1, 2), noise=0.02, over_depth=False, **how):
    """A run of every depth and seed; `over_depth`: lambda is 0.005 / blocks."""
    loss = how.pop("loss", CE)
    for blocks in depths:
        for seed in seeds:
            own = loss | {"l2": 0.005 / blocks} if over_depth else loss
            write_depth_run(root, blocks, seed, noise=noise, loss=own, **how)
    return root


def diverge_at(root, blocks, seed, **how):
    """A run that ended in numbers that are none."""
    folder = write_depth_run(root, blocks, seed, done=False, **how)
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event": "diverged"}\n')
    return folder


def _layers(model):
    names = [f"map{i}" for i in range(1, model["maps"] + 1)] if model["name"] == "rn" else ["attention", "mlp1"]
    layers = [_layer("embed", "embedding")]
    for block in (f"block{i}" for i in range(1, model["blocks"] + 1)):
        sites = [f"{block}.{name}" for name in names]
        layers += [_layer(site, "hidden", site) for site in sites]
        layers.append(_layer(block, "block", None, sites))
    if model.get("norm") == "pre":
        layers.append(_layer("norm", "classifier_input"))
    return [*layers, _layer("head", "classifier", "head", ["head"])]


def _layer(layer, role, site=None, stage=None):
    return {"layer": layer, "role": role, "site": site, "stage": stage}


def _at(layer, blocks, last, worse):
    """Metrics of one layer: NC1 falls geometrically from 10 at the embedding to its value at the last block."""
    if layer == "norm" or layer == f"block{blocks}":
        return last | {"nc1_trace_ratio": last["nc1_trace_ratio"] * worse}
    where = 0 if layer == "embed" else blocks if layer == "head" else int(layer.split(".")[0].removeprefix("block"))
    share = where / blocks
    start = last["nc1_trace_ratio"]
    nc1 = 10 ** (1 + share * (math.log10(start) - 1)) if start > 0 else start
    return {"nc1_trace_ratio": nc1 * worse, "nc1": 9 * nc1, "ncc_accuracy": 0.7 + 0.29 * share**0.5}
