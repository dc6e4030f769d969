"""Logits to ids: search over a step function, and word alignments from attention."""
