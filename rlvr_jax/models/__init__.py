"""Models as pure functions of their params."""
