"""Untrusted Python programs under Landlock, seccomp and rlimits (docs/sandbox.md)."""
