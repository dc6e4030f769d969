"""Ids to tensors: the token store and the batches made from it."""
