"""Benchmarks and chaos: development tools that no training imports."""
