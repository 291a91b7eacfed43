"""Settings: one flat, frozen value, from ``config/default.toml``, a file, the environment and flags, in that order.

A setting has one name in three spellings: ``memory_budget`` in TOML, ``SWITCHYARD_MEMORY_BUDGET`` in the
environment, ``--memory-budget`` as a flag. ``shape`` says what there is, ``load`` reads it.
"""

from app.settings.model_entry import ModelEntry
from app.settings.settings_model import SMOLLM2, Settings

__all__ = ["SMOLLM2", "ModelEntry", "Settings"]
