"""How good is it: BLEU, chrF and TER for language, error rates for other symbols. Never imports torch."""
