"""The paper's claims as experiments: one module per question.

Each module has
- QUESTION, PAPER (the section or table it is from) and MINUTES (quick, full) on one core of two, measured beside other
  work or scaled from a quick run;
- REVISIONS, where there were any: what made the same settings come to other results, so that older ones are run anew;
- NEEDS, the corpora that it reads (`corpora` says where they lie), none if it makes its own data;
- `Settings`, a frozen dataclass, and QUICK, the settings of a quick run;
- `run(settings)`, a generator that yields what it is doing and returns the result as data (JSON can hold it);
- `verdict(data)`, `table(data)` and `draw(data, figure)`, which know nothing but that data.
"""

EXPERIMENTS = {  # name -> module, in the paper's order; imported when it runs
    "residuals": "heedful.lab.residuals",
    "attention-steps": "heedful.lab.attention_steps",
    "scaling": "heedful.lab.scaling",
    "heads": "heedful.lab.heads",
    "encoder-decoder": "heedful.lab.encoder_decoder",
    "positions": "heedful.lab.positions",
    "parallelism": "heedful.lab.parallelism",
    "long-range": "heedful.lab.long_range",
    "sentence-length": "heedful.lab.sentence_length",
    "data-size": "heedful.lab.data_size",
    "table2": "heedful.lab.table2",
    "table3": "heedful.lab.table3",
    "table4": "heedful.lab.table4",
}
