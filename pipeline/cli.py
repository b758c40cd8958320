"""The command `clipvip-data`: one subcommand per stage, imported when it is called."""

import click

from clipvip import __version__
from clipvip.pipeline.runtime.lazy_group import LazyGroup

# name -> (module, one line for --help); a module has its command under `command`, or `:another name`.
_COMMANDS = {
    "download": ("clipvip.pipeline.download.command", "Fetch videos and their subtitles by yt-dlp."),
    "shard": ("clipvip.pipeline.shard.command", "Cut videos into clips and write them as WebDataset shards."),
    "caption": ("clipvip.pipeline.caption.command", "Caption the middle frame of every clip with OFA."),
    "import-captions": (
        "clipvip.pipeline.import_captions.command",
        "Make captions that others have made ours.",
    ),
    "nmi": (
        "clipvip.pipeline.domain_gap.command",
        "Measure the language-domain gap between text corpora (Table 1).",
    ),
    "inspect": ("clipvip.pipeline.tools.inspect", "Show clips of shards, on the terminal or as a page."),
    "stats": (
        "clipvip.pipeline.tools.stats",
        "Count clips, hours, bytes and words, and draw how they are spread.",
    ),
    "merge": ("clipvip.pipeline.tools.merge", "Put the shards of several folders into one."),
    "split": ("clipvip.pipeline.tools.split", "Split shards into parts, such as train and val, by video."),
    "subset": (
        "clipvip.pipeline.tools.subset",
        "Copy some clips into shards of their own, at random or by a list.",
    ),
    "verify": ("clipvip.pipeline.tools.verify", "Check shards and captions, and remove what is broken."),
    "convert-released": (
        "clipvip.pipeline.tools.convert:released",
        "Turn a released CLIP-ViP checkpoint into a model folder.",
    ),
    "convert-ofa": (
        "clipvip.pipeline.tools.convert:ofa",
        "Turn a fairseq OFA checkpoint into a model folder.",
    ),
}

_EPILOG = """Exit codes: 0 done, 1 the input or the machine is at fault, 2 the command line is,
130 stopped by Ctrl-C, 143 by SIGTERM; docs/cli.md says more.

\b
Examples:
  clipvip-data shard --metadata clips.jsonl --videos videos/ --subtitles subtitles/ --out clips/
  clipvip-data verify clips/
"""


@click.command(cls=LazyGroup, modules=_COMMANDS, title="Stages", epilog=_EPILOG)
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """Turn videos with subtitles into training data for CLIP-ViP, one stage at a time."""
