"""What looks at this machine, its settings and its keys."""
