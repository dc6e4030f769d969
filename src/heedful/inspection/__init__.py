"""Look inside: what a model costs, and what it attends to."""
