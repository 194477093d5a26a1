"""What a training step of our ViT and ResNet costs, beside the same network of another library.

    python scripts/bench_networks.py                         writes outputs/bench/networks.json

Ours is `train_epoch`, as in a run; theirs is `plain_epoch`, a short loop over images in memory with the same fused
optimizer, batches of 128. Libraries: timm's VisionTransformer, nn.TransformerEncoder, torchvision's resnet18. What
differs between the networks: in the last block of our ViT only the class token is computed, which alone is read; timm
gives the class token a position; our ResNet lays images out channels last. A library that is not installed has a row
that says so.
"""

import statistics
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nclab.bench.by_hand import feed, learner, plain_epoch
from nclab.bench.harness import arguments, images, limits, ratio, rounds, save
from nclab.bench.peers import CLASSES, SETTINGS
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.training.optim import AdamWSettings, SGDSettings, adamw, sgd
from nclab.training.step import train_epoch

BATCH = 128


def optimizer_of(setting: str, model: nn.Module) -> Optimizer:
    return adamw(AdamWSettings(), model.parameters()) if "ViT" in setting else sgd(SGDSettings(), model.parameters())


def rows_of(name: str, device: str, steps: int, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for every library that has this network, all timed in the same rounds."""
    setting = SETTINGS[name]
    split = Split(*images(BATCH * steps, CLASSES, setting.shape, seed=0))
    dataset = Dataset({"train": split, "test": split}, Classes(CLASSES), setting.shape).to(device)
    torch.manual_seed(0)
    ours = setting.ours().to(device)
    calls = {"ours": partial(train_epoch, learner(ours, optimizer_of(name, ours)), feed(dataset, BATCH))}
    sizes, absent = {"ours": sum(p.numel() for p in ours.parameters())}, []
    for library, build in setting.peers.items():
        try:
            peer = build().to(device)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != library:
                raise
            absent.append(library)
            continue
        calls[library] = partial(plain_epoch, peer, dataset, optimizer_of(name, peer), BATCH)
        sizes[library] = sum(p.numel() for p in peer.parameters())
    taken = dict(zip(calls, rounds(repeats, *calls.values(), device=device), strict=True))
    spent = {library: statistics.median(times) / steps for library, times in taken.items()}
    for library in setting.peers:
        row = {"setting": name, "peer": library, "step_seconds": spent["ours"], "parameters": sizes["ours"]}
        if library in absent:
            yield row | {"not_installed": library}
        else:
            theirs = {"peer_step_seconds": spent[library], "peer_parameters": sizes[library]}
            yield row | theirs | ratio("step_over_peer", taken["ours"], taken[library])


def main() -> int:
    args = arguments(__doc__.splitlines()[0], "networks", settings=[*SETTINGS], steps=8)
    machine, rows = limits(args.device), []
    for name in args.settings:
        for row in rows_of(name, args.device, args.steps, args.repeats):
            rows.append(row)
            ours = f"{name}: {row['step_seconds'] * 1e3:.1f} ms a step"
            if "not_installed" in row:
                print(f"{ours}; {row['peer']}: not installed")
                continue
            least, most = row["step_over_peer_spread"]
            print(
                f"{ours}, {row['step_over_peer']:.2f} ({least:.2f} to {most:.2f}) times that of {row['peer']}, "
                f"{row['peer_step_seconds'] * 1e3:.1f} ms"
            )
    save(args.out, {"limits": machine, "rows": rows}, args.device, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
