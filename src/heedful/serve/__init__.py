"""Translating over HTTP: LibreTranslate's interface, and a page to look inside."""
