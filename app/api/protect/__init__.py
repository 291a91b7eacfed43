"""Who gets in, how much is taken in, how long it may take."""
