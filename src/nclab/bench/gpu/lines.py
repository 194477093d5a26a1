"""The lines of the acceptance in their order: what is wrong matters more than what is slow, and comes first."""

from nclab.bench.gpu import (
    device_tests,
    epochs,
    exchange,
    graphs,
    layer_memory,
    plans,
    products,
    resumed,
    stacked,
    waits,
)
from nclab.bench.gpu.row import Line

LINES: dict[str, Line] = {
    module.LINE.name: module.LINE
    for module in (device_tests, resumed, waits, exchange, graphs, products, layer_memory, stacked, epochs, plans)
}
