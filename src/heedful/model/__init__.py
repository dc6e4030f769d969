"""Tensors to hidden states and logits: the Transformer of the paper."""
