"""A model's text side: tokenizer, detokenizer, chat template."""
