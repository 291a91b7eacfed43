"""From logits to the token that is drawn."""
