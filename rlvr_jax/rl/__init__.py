"""Advantages, losses and the loops that update a policy."""
