"""Accuracy through the service and without it, by lm-eval and by mlx-lm."""
