"""Problems, prompts and verifiers. Nothing here imports jax."""
