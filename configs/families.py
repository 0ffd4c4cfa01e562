"""Task families of the boundary benchmark (for now one)."""

FAMILIES = {
  'countdown': {'task.params': {'problems': 4000, 'largest': 13, 'target': 99, 'seed': 1}}
}
