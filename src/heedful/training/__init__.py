"""Batches to a trained model: the loop, and what it needs."""
