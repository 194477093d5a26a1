"""A finished run folder of stated rows, as training writes it: what the made-up runs of the wings end in."""

import json
import zlib
from pathlib import Path

import yaml


def write_folder(root: Path, config: dict, layers: list[dict], lines: list[str], summary: dict) -> Path:
    """`layers` are those of the event start, `lines` those of metrics.csv behind its header; seed and place are the
    configuration's."""
    text = yaml.safe_dump(config)
    folder = root / config["experiment_name"] / f"s{config['seed']}-{zlib.crc32(text.encode()):08x}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    (folder / "metrics.csv").write_text("\n".join(["epoch,split,layer,metric,value", *lines]) + "\n")
    (folder / "events.jsonl").write_text(json.dumps({"event": "start", "epoch": 0, "layers": layers}) + "\n")
    (folder / "summary.json").write_text(json.dumps({"seed": config["seed"]} | summary))
    (folder / "DONE").touch()
    return folder
