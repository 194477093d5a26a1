"""One run on several processes: the process group, summed gradients, batch norm over the whole batch."""
