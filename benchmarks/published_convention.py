"""BLEU as the published scores of Multi30k count it: lowercased, punctuation normalised, tokenised by Moses.

    pip install -c constraints.txt sacremoses
    python benchmarks/published_convention.py OUTPUT REFERENCE [--language de]

Wu et al. 2021 score so, with four-gram BLEU over those tokens. Prints both: sacreBLEU's own, which compares across
papers, is what `heedful evaluate --outputs OUTPUT --reference REFERENCE` tells.
"""

import argparse
from pathlib import Path

from sacrebleu.metrics import BLEU
from sacremoses import MosesPunctNormalizer, MosesTokenizer


def main() -> None:
    """Score one file against another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--language", default="de")
    options = parser.parse_args()
    normalizer, tokenizer = MosesPunctNormalizer(options.language), MosesTokenizer(options.language)

    def tokens(line: str) -> str:
        return str(tokenizer.tokenize(normalizer.normalize(line), return_str=True, escape=False)).lower()

    texts = [path.read_text(encoding="utf-8").splitlines() for path in (options.output, options.reference)]
    if len(texts[0]) != len(texts[1]):
        raise SystemExit(f"{options.output} has {len(texts[0])} lines, {options.reference} {len(texts[1])}")
    output, reference = ([tokens(line) for line in text] for text in texts)
    print("published convention:", BLEU(tokenize="none", force=True).corpus_score(output, [reference]))
    print("sacreBLEU:", BLEU(force=True).corpus_score(texts[0], [texts[1]]))


if __name__ == "__main__":
    main()
