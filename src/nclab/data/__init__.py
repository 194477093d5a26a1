"""Datasets that live whole on the training device: load them by name, from local files only."""

from nclab.data.dataset import DATASETS, Dataset, DatasetSettings, MissingDataError, Split, data_root, load_dataset

__all__ = ["DATASETS", "Dataset", "DatasetSettings", "MissingDataError", "Split", "data_root", "load_dataset"]
