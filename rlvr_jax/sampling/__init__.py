"""The sampling engine: a queue of items in, completions out."""
