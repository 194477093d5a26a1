"""Gradients summed over the processes of a run, while backward is still at work."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nclab.parallel.group import ProcessGroup

BUCKET = 25 * 2**20  # bytes exchanged at once: enough to use a network, few enough to begin before backward ends


class SummedGradients:
    """A context in which `backward` leaves the sum over processes in every `grad`; with one process plain backward.

    Parameters go into buckets from the last to the first, about as backward reaches them; a bucket is sent when all of
    its gradients are there. Buckets and their order depend on the parameters alone: floats are added in the same order
    in every step and after every resume. Make a new one when the set of parameters changes.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], world: ProcessGroup):
        self.world = world
        self._buckets: list[list[nn.Parameter]] = [[]]
        size = 0
        for p in reversed([p for p in parameters if p.requires_grad]):
            if self._buckets[-1] and size + p.numel() * p.element_size() > BUCKET:
                self._buckets.append([])
                size = 0
            self._buckets[-1].append(p)
            size += p.numel() * p.element_size()
        self._hooks: list = []

    def __enter__(self) -> "SummedGradients":
        if self.world.size > 1:
            for b, bucket in enumerate(self._buckets):
                for p in bucket:
                    self._hooks.append(p.register_post_accumulate_grad_hook(lambda _, b=b: self._ready(b)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def backward(self, loss: Tensor, beside: Tensor | None = None) -> Tensor:
        """Gradients of the sum over processes of `loss`, (); returns that sum. Of a single process `loss` may be (S,),
        one of each stacked model: the sum over them is minimised, and they are returned; and the gradients may be those
        of loss + `beside`, ()."""
        if self.world.size == 1:
            total = loss.sum() if loss.ndim else loss
            (total if beside is None else total + beside).backward()
            return loss.detach()
        self._missing = [len(bucket) for bucket in self._buckets]
        self._sent: list = []
        self._loss = loss.detach().reshape(1)
        loss.backward()
        while len(self._sent) < len(self._buckets):  # a parameter that the loss does not depend on
            self._send()
        for tensors, flat, end in self._sent:
            end()
            of_bucket = flat.split([t.numel() for t in tensors])
            for p, total in zip(tensors, of_bucket, strict=True):
                if isinstance(p, nn.Parameter):
                    p.grad = total.view_as(p)
        return total.reshape(())  # of the last: the loss

    def _ready(self, bucket: int) -> None:
        self._missing[bucket] -= 1
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:  # in their order
            self._send()

    def _send(self) -> None:
        at = len(self._sent)
        tensors = [p for p in self._buckets[at] if p.grad is not None]
        parts = [p.grad.flatten() for p in tensors]
        if at == len(self._buckets) - 1:  # the loss goes along
            tensors.append(self._loss)
            parts.append(self._loss)
        flat = torch.cat(parts)
        self._sent.append((tensors, flat, self.world.start_sum(flat)))
