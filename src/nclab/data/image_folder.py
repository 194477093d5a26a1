"""A folder of pictures for every class: `dataset=image_folder dataset.path=FOLDER`.

Layouts (torchvision's ImageFolder): FOLDER/train/CLASS/**/*.png with FOLDER/test/ and FOLDER/valid/ (or val/) where
there are such splits; or FOLDER/CLASS/**/*.png, of which dataset.test_size pictures become the test split. Classes are
the sorted names of train's folders. PNG and JPEG files count; others, and hidden folders, are left out.

`dataset.path` is part of what a run is, as it is written: the same folder at another path makes another run. Pictures
are decoded at every start; where that takes long, keep them in an .npz (dataset=npz).
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from nclab.data.dataset import DATASETS, Dataset
from nclab.data.images import ImageDataset
from nclab.data.own import divided, found_at, require_path
from nclab.data.pictures import SUFFIXES, PictureSettings, channels_of, opened, stacked
from nclab.data.split import Split
from nclab.interfaces.shapes import ImageShape
from nclab.interfaces.targets import Classes

FOLDERS = {"test": "test", "valid": "valid", "val": "valid"}  # beside train -> split


@dataclass
class FolderSettings(PictureSettings):
    """The keys of conf/dataset/image_folder.yaml; a value out of its range raises ValueError."""

    path: str = field(kw_only=True)  # of the folder, ~ included; part of the name of a run, as it is written

    def __post_init__(self) -> None:
        super().__post_init__()
        require_path(self.path, "a folder of pictures")


def classes_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def files_of(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """(file, class number) of every picture. Raises ValueError for a folder of a class that train has not."""
    if unknown := [name for name in classes_in(folder) if name not in classes]:
        raise ValueError(f"{folder}: expected folders of the classes {', '.join(classes)}; got {unknown[0]}")
    return [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder / name).parts)
    ]


@DATASETS.add("image_folder", FolderSettings)
def build(settings: FolderSettings, root: Path) -> ImageDataset:
    folder = found_at(settings.path, "a folder of pictures", "is_dir")
    train = folder / "train"
    folders = {"train": folder}
    if train.is_dir():
        if (folder / "valid").is_dir() and (folder / "val").is_dir():
            raise ValueError(f"{folder}: expected valid/ or val/, found both")
        beside = {split: folder / name for name, split in FOLDERS.items() if (folder / name).is_dir()}
        folders = {"train": train, **beside}
    classes = classes_in(folders["train"])
    if not classes:
        raise ValueError(f"{folders['train']}: expected a folder of pictures for every class, found none")
    files = {split: files_of(place, classes) for split, place in folders.items()}
    for split, found in files.items():
        held = {number for _, number in found}
        empty = [name for number, name in enumerate(classes) if number not in held]
        if not found or (split == "train" and empty):
            place = folders[split] / empty[0]
            raise ValueError(f"{place}: expected pictures ({', '.join(SUFFIXES)}), found none")
    channels = settings.channels or channels_of(opened(files["train"][0][0]))
    splits = {}
    for split, found in files.items():
        paths = [path for path, _ in found]
        samples = stacked(map(opened, paths), paths, channels, settings.size, convert=settings.channels is not None)
        splits[split] = Split(samples, torch.tensor([number for _, number in found]))
    try:
        splits = divided(splits, settings.test_size)
        shape = ImageShape(*splits["train"].samples.shape[1:])
        return Dataset(splits, Classes(len(classes), tuple(classes)), shape)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
