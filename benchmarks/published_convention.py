"""BLEU as published scores count it, beside sacreBLEU's own.

    pip install -c constraints.txt sacremoses
    python benchmarks/published_convention.py OUTPUT REFERENCE [--convention multi30k|paper] [--language de]

multi30k, as Wu et al. 2021 score: punctuation normalised, tokenised by Moses, lowercased. paper, as Attention Is All
You Need and those after it score newstest2014 English to German (tensor2tensor's get_ende_bleu.sh): tokenised by Moses,
cased, compounds split at their hyphens. Both are four-gram BLEU over those tokens. Figures compare across papers by
sacreBLEU's own alone, which is what `heedful evaluate --outputs OUTPUT --reference REFERENCE` tells.
"""

import argparse
import re
from pathlib import Path

from sacrebleu.metrics import BLEU
from sacremoses import MosesPunctNormalizer, MosesTokenizer

HYPHEN = re.compile(r"(\S)-(\S)")


def main() -> None:
    """Score one file against another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--convention", choices=["multi30k", "paper"], default="multi30k")
    parser.add_argument("--language", default="de")
    options = parser.parse_args()
    normalizer, tokenizer = MosesPunctNormalizer(options.language), MosesTokenizer(options.language)

    def tokens(line: str) -> str:
        plain = options.convention == "multi30k"
        text = str(tokenizer.tokenize(normalizer.normalize(line) if plain else line, return_str=True, escape=False))
        return text.lower() if plain else HYPHEN.sub(r"\1 ##AT##-##AT## \2", text)

    texts = [path.read_text(encoding="utf-8").splitlines() for path in (options.output, options.reference)]
    if len(texts[0]) != len(texts[1]):
        raise SystemExit(f"{options.output} has {len(texts[0])} lines, {options.reference} {len(texts[1])}")
    output, reference = ([tokens(line) for line in text] for text in texts)
    print(f"{options.convention}:", BLEU(tokenize="none", force=True).corpus_score(output, [reference]))
    print("sacreBLEU:", BLEU(force=True).corpus_score(texts[0], [texts[1]]))


if __name__ == "__main__":
    main()
