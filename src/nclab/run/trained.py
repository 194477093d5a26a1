"""Load the network of a run folder: for a look that the logs do not hold."""

from pathlib import Path

from nclab.config.schema import RunConfig, resolve_machine
from nclab.config.stored import stored_run
from nclab.data import Dataset
from nclab.models import Classifier
from nclab.run.build import as_phases_see, loaded, network
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RecordError
from nclab.training.progress import restore_model


def load_trained(folder: Path, device: str = "cpu", best: bool = False) -> tuple[Classifier, Dataset, RunConfig]:
    """The network as of its last checkpoint, in evaluation mode, its dataset and its configuration. Says so on stderr
    where that is the previous one, because the last is damaged. `best`: as of its best epoch, of a run with that key.

    Raises RecordError where the folder holds no run or no checkpoint.
    """
    stored = folder / "config.yaml"
    if not stored.exists():
        raise RecordError(f"{folder} is no run folder: it has no config.yaml")
    config = stored_run(stored)
    config.device = device
    resolve_machine(config)
    state = checkpoint.load_best(folder) if best else checkpoint.load(folder)
    if state is None:
        raise RecordError(f"{folder} has no {checkpoint.BEST if best else checkpoint.NAME} yet")
    dataset = as_phases_see(config, loaded(config, config.data_root, device))
    model = network(config, dataset).to(device)
    restore_model(state, model)
    return model.eval(), dataset, config
