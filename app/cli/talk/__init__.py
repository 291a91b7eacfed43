"""Commands that ask a model something."""
