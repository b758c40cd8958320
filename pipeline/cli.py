"""The command `clipvip-data`: one subcommand per stage, imported when it is called."""

import click

from clipvip import __version__
from clipvip.pipeline.runtime.lazy_group import LazyGroup

# name -> (where its stage or command is, one line for --help)
_COMMANDS = {
    "download": ("download.stage:download", "Fetch videos and their subtitles, with yt-dlp."),
    "transcribe": (
        "transcribe.stage:transcribe",
        "Write what is said in videos as subtitles, with Whisper.",
    ),
    "clips": ("clips.stage:clips", "List the clips of a folder of videos that has no list."),
    "shard": ("shard.stage:shard", "Cut videos into clips and write them as WebDataset shards."),
    "caption": ("caption.stage:caption", "Caption frames of every clip, with OFA or another model."),
    "import-captions": ("import_captions.stage:import_captions", "Import captions that others made."),
    "nmi": ("domain_gap.stage:nmi", "Measure how far apart the language of text corpora is (Table 1)."),
    "filter": ("filter.stage:filter", "Measure clips, and list those that meet conditions."),
    "inspect": ("tools.inspect:inspect", "Show clips of shards, on the terminal or as a page."),
    "stats": ("tools.stats:stats", "Count clips, hours, bytes and words, and plot their distributions."),
    "merge": ("tools.merge:merge", "Put the shards of several folders into one."),
    "split": ("tools.split:split", "Split shards into parts, such as train and val, by video."),
    "subset": ("tools.subset:subset", "Copy some clips into shards of their own, at random or by a list."),
    "verify": ("tools.verify:verify", "Check shards and captions, and remove what is broken."),
    "convert-released": (
        "tools.convert:released",
        "Turn a released CLIP-ViP checkpoint into a model folder.",
    ),
    "convert-openclip": ("tools.convert:openclip", "Turn a checkpoint of OpenCLIP into a CLIP folder."),
    "convert-ofa": ("tools.convert:ofa", "Turn a fairseq OFA checkpoint into a model folder."),
    "interpolate": ("tools.interpolate:interpolate", "Make a model between a start and a fine-tuned one."),
}

_EPILOG = """Exit codes: 0 done, 1 the input or the machine is at fault, 2 the command line is wrong,
130 stopped by Ctrl-C, 143 by SIGTERM; docs/cli.md says more.

\b
Examples:
  clipvip-data shard --metadata clips.jsonl --videos videos/ --subtitles subtitles/ --out clips/
  clipvip-data verify clips/
"""


@click.command(cls=LazyGroup, package="clipvip.pipeline", modules=_COMMANDS, title="Stages", epilog=_EPILOG)
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """Turn videos with subtitles into training data for CLIP-ViP, one stage at a time."""
