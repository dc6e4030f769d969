"""Strings to ids: parallel text and its subword vocabulary. Never imports torch."""
