"""Data, not Python: the settings' defaults and the models' entries; a package, so that it is installed with ``app``."""
