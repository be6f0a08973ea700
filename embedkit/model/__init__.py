"""The model folder: its settings and its tokenizer."""
