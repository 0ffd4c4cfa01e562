"""rlvr_jax: what reinforcement learning with verifiable rewards does to a language model."""

__version__ = '0.1.0'
