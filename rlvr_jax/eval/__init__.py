"""The sample store, its statistics and the boundary report."""
