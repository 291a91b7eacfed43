"""From a model directory to a resident engine."""
