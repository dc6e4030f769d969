"""Ids to arrays and tensors: the token store and the batches made from it."""
