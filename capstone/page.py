"""report.html: one page that needs nothing else, with its pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from capstone.card import Row
from labkit.text import duration

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
h1 { margin-bottom: 0 } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d8dee4 }
p.sub { color: #57606a; margin-top: .2rem }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #e6e9ed }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.met { color: #116329; font-weight: 600 } .missed { color: #b3261e; font-weight: 600 }
.not { color: #8a5a00; font-weight: 600 }
pre { background: #f6f8fa; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere;
      font-size: .85rem }
img { min-width: 16rem; max-width: 100%; height: auto }
ol.track { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem }
ol.track li { border: 1px solid #d8dee4; border-radius: .4rem; padding: .3rem .7rem }
ol.track small { color: #57606a; display: block }
"""
BANDS = "<p>Bands are those of size tiny; a run of size smoke is not expected to meet them.</p>"
KINDS = {".png": "image/png", ".gif": "image/gif"}


@dataclass(frozen=True)
class Section:
    """What a stage, or the run, shows: in the page's order."""

    title: str
    text: str = ""
    pictures: Sequence[Path] = ()
    samples: Mapping[str, str] = field(default_factory=dict)
    """Texts to read, by their names."""


def picture(file: Path) -> str:
    """An <img> with the picture inside."""
    data = base64.b64encode(file.read_bytes()).decode()
    kind = KINDS[file.suffix]
    return f'<p><img alt="{escape(file.stem)}" src="data:{kind};base64,{data}"></p>'


def table(rows: Sequence[Row]) -> str:
    """The claims table."""
    lines = []
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4g}"
        mark = row.verdict.split(" ")[0]
        cells = [
            f"<td>{escape(row.stage)}</td><td>{escape(row.metric)}</td>",
            f'<td class="number">{value}</td><td>{escape(row.band)}</td>',
            f'<td class="{mark}">{escape(row.verdict)}</td>',
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("stage", "metric", "value", "band", "verdict"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, two columns."""
    lines = (
        f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in values.items()
    )
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def track(stages: Mapping[str, str], seconds: Mapping[str, float]) -> str:
    """The stages in a row: what each does, and how long it took."""
    items = (
        f"<li><b>{escape(name)}</b> {duration(seconds.get(name, 0.0))}"
        f"<small>{escape(does)}</small></li>"
        for name, does in stages.items()
    )
    return f'<ol class="track">{"".join(items)}</ol>'


def page(
    title: str, sub: str, stages: Mapping[str, str], seconds: Mapping[str, float],
    rows: Sequence[Row], sections: Sequence[Section], card: Mapping[str, Any],
) -> str:  # fmt: skip
    """The whole page."""
    parts = [
        f"<h1>{escape(title)}</h1><p class='sub'>{escape(sub)}</p>",
        track(stages, seconds), "<h2>What was claimed, and what was measured</h2>",
        BANDS, table(rows),
    ]  # fmt: skip
    for section in sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        parts += [f"<p>{escape(section.text)}</p>"] if section.text else []
        parts += map(picture, section.pictures)
        parts += (
            f"<h3>{escape(name)}</h3><pre>{escape(text)}</pre>"
            for name, text in section.samples.items()
        )
    parts += ["<h2>Model card</h2>", facts(card)]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
