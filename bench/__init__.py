"""One module a benchmark; see run.py."""
