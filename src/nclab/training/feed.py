"""Where the batches of a training come from: dataset, phases, sampler and the generators that they draw from."""

from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from nclab.data import Dataset
from nclab.interfaces.batch import Batch
from nclab.metrics.suite import Seen
from nclab.parallel.group import SINGLE, ProcessGroup
from nclab.training.phases import Phase, Portion
from nclab.training.progress import Part
from nclab.training.sampler import Sampler

ALL = Phase("train", 1)  # every row, in as many epochs as there are


@dataclass
class Feed:
    """Orders of samples by epoch, and the batches made of them.

    generators: `order` and `augment`, both on the CPU, so that a run is the same on every device. Several processes
    draw the same order and the same changes of samples; each takes its rows of a batch, some of the last one none.
    """

    dataset: Dataset
    sampler: Sampler
    batch_size: int
    generators: dict[str, Generator]
    phases: list[Phase] = field(default_factory=list)  # empty: all rows in every epoch
    world: ProcessGroup = SINGLE

    def phase(self, epoch: int) -> Phase:
        """The phase of an epoch, counted from 0; the last one also afterwards."""
        end = 0
        for phase in self.phases:
            end += phase.epochs
            if epoch < end:
                return phase
        return self.phases[-1] if self.phases else ALL

    def begin_epoch(self, epoch: int, part: Part) -> bool:
        """Tell the sampler where a phase begins; a resumed run that is in the middle of its first epoch has. Returns
        whether a phase begins that wants an optimizer without memory."""
        phase = self.phase(epoch)
        begins = part.order is None and (epoch == 0 or self.phase(epoch - 1) is not phase)
        if begins:
            self.sampler.begin_phase(phase, self._portion(phase), self.generators["order"])
        return begins and phase.fresh_optimizer

    def seen(self, epoch: int) -> Seen | None:
        """Which rows the phases up to that of an epoch drew from; None where no phase has rows of its own."""
        now = self.phase(epoch)
        if all(phase.rows is None for phase in self.phases):
            return None
        before = self.phases[: next(i for i, phase in enumerate(self.phases) if phase is now)]
        present, *past = (_rising(phase.rows, len(self.dataset.train)) for phase in (now, *before))
        return Seen(present, torch.cat(past).unique() if past else present[:0], self.sampler.memory().sort().values)

    def samples(self, epoch: int) -> int:
        """How many rows the order of an epoch has."""
        return self.sampler.drawn(self._portion(self.phase(epoch)))

    def order(self, epoch: int, part: Part) -> Tensor:
        """Rows of the train split, (n,): the order of the epoch under way, else a new one."""
        generator = self.generators["order"]
        if part.order is None:
            part.order, part.sampler = generator.get_state(), deepcopy(self.sampler.state_dict())
        else:  # a resumed epoch: its order is drawn again
            generator.set_state(part.order)
            self.sampler.load_state_dict(part.sampler or {})
        return self.sampler.order(self._portion(self.phase(epoch)), epoch, generator)

    def batch(self, rows: Tensor) -> Batch:
        """This process's part of the batch of these rows of the train split, changed by the dataset's augmentation."""
        own = self.world.share(len(rows))
        index, split = rows[own], self.dataset.train
        # index_select: on a CPU five times as fast as indexing with a tensor
        samples = split.samples.index_select(0, index)
        inputs = self.dataset.inputs(samples, self.generators["augment"], own, len(rows))
        return Batch(inputs, split.targets.index_select(0, index), index, len(rows))

    def stacked_batch(self, feeds: list["Feed"], rows: Tensor) -> Batch:
        """The batches of several seeds at once, rows (S, B): inputs (S, B, ...), targets and index (S, B); each seed's
        samples are changed by its own random numbers. `feeds`: of all seeds, this one among them."""
        split = self.dataset.train
        targets = split.targets.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        if self.dataset.augment == "none":
            inputs = self.dataset.inputs(split.samples.index_select(0, rows.flatten())).unflatten(0, rows.shape)
        else:
            inputs = torch.stack(
                [
                    self.dataset.inputs(split.samples.index_select(0, own), feed.generators["augment"])
                    for own, feed in zip(rows, feeds, strict=True)
                ]
            )
        return Batch(inputs, targets, rows, rows.shape[1])

    def _portion(self, phase: Phase) -> Portion:
        rows = phase.rows if phase.rows is None else phase.rows.to(self.dataset.train.targets.device)
        return Portion(self.dataset.train, rows)


def _rising(rows: Tensor | None, samples: int) -> Tensor:
    """Rows (n,) of a split in rising order, in host memory; None: all."""
    return torch.arange(samples) if rows is None else rows.cpu().sort().values
