"""What a row may say next: grammars and thoughts."""
