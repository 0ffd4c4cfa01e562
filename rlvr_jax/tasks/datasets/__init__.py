"""Benchmarks and training sets by name: a table (table.py), one TFDS builder class (builder.py)."""
