"""Tool calls: the model families' ways to write them, read piece by piece and forced by grammars."""
