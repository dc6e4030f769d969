"""`heedful info`."""

import json
from collections import Counter
from typing import Annotated

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from heedful.bundle import WEIGHTS, model_configs, read_manifest
from heedful.cli.settings import POSITIVE, Bundle, Json
from heedful.cli.terminal import terminal
from heedful.inspection.cost import forward_flops, parameters
from heedful.model.arrays import read_arrays
from heedful.model.settings import ModelConfig


def info(
    bundle: Bundle,
    /,
    *,
    length: Annotated[
        int, Parameter(help="Sentence length that the cost is given for, in tokens", validator=POSITIVE)
    ] = 25,
    json_: Json = False,
) -> None:
    """Describe a model: parameters, FLOPs per token, sizes, search defaults, provenance; verifies its files."""
    manifest = read_manifest(bundle)
    read_arrays(bundle / WEIGHTS)
    configs = model_configs(bundle, manifest)
    source, target = manifest["symbols"]["source"], manifest["symbols"]["target"]
    counted, flops = Counter[str](), Counter[str]()
    for config in configs:
        counted.update(parameters(config, source, target))
        flops.update(forward_flops(config, target, length, length))
    size = (bundle / WEIGHTS).stat().st_size
    if json_:
        described = {"parameters": counted, "flops": flops, "length": length, "bytes": size, **manifest}
        print(json.dumps(described, indent=1, default=str))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for number, config in enumerate(configs):
        table.add_row("model" if number == 0 else "and", _sizes(config))
    parts = ", ".join(f"{name} {count:,}" for name, count in counted.items())
    table.add_row("parameters", f"{sum(counted.values()):,} ({parts})")
    table.add_row("vocabulary", f"{source:,} source and {target:,} target tokens")
    per_token = sum(flops.values()) / length / 1e6
    table.add_row(
        "cost",
        f"{per_token:.2f} MFLOP a token to score, {3 * per_token:.2f} to train (both sides {length} long)",
    )
    table.add_row("weights", f"{size / 1e6:.1f} MB, checksum verified")
    table.add_row(
        "search",
        ", ".join(f"{key} {manifest['search'][key]}" for key in ("beam", "length_penalty", "max_extra")),
    )
    if manifest.get("languages"):
        table.add_row("languages", " to ".join(manifest["languages"]))
    if "alignment" in manifest:
        aligns, agrees = manifest["alignment"]["attention"], manifest["alignment"].get("agreement")
        told = f", which agrees with a lexicon in {100 * agrees:.0f} % of its links" if agrees is not None else ""
        table.add_row("alignment", aligns + told)
    for key, value in manifest["provenance"].items():
        table.add_row(key, escape(", ".join(value) if isinstance(value, list) else str(value)))
    terminal().print(table)


def _sizes(config: ModelConfig) -> str:
    layers = f"{config.family}, {config.encoder_layers}+{config.decoder_layers} layers, d_model {config.d_model}"
    own = {
        "transformer": f", d_ff {config.d_ff}, {config.heads} heads, {config.normalization}-norm",
        "convolution": f", kernel {config.kernel}",
    }
    return layers + own.get(config.family, "")
