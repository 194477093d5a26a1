"""Datasets that live whole on the training device: load them by name, from local files only."""

from nclab.data.arrays import ArrayDataset, ArraySettings, IndexDataset
from nclab.data.dataset import DATASETS, Dataset, DatasetSettings, MissingDataError, data_root, load_dataset
from nclab.data.images import ImageDataset, ImageSettings
from nclab.data.split import Split
from nclab.data.text import TextDataset, TextSettings

__all__ = [
    "DATASETS",
    "ArrayDataset",
    "ArraySettings",
    "Dataset",
    "DatasetSettings",
    "ImageDataset",
    "ImageSettings",
    "IndexDataset",
    "MissingDataError",
    "Split",
    "TextDataset",
    "TextSettings",
    "data_root",
    "load_dataset",
]
