"""A source: Charades-STA, whose lines are `AO8RW 0.0 6.9##a person is putting a book on a shelf.`

`clipvip-data shard --dataset charades_sta/train --annotations FOLDER --videos FOLDER --out FOLDER`. A line
that cannot be used is yielded as a `Skip`, with its reason; a file that cannot be used is a `DatasetError`.
"""

from pathlib import Path

from clipvip.shards.errors import Skip
from clipvip.shards.sources.clip_sets import clip_row
from clipvip.shards.sources.video_set_files import Rows, read_text
from clipvip.shards.sources.video_sets import DATASETS, Split


def read_charades_sta(path: Path) -> Rows:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        where = f"{path.name}, line {number}"
        moment, _, sentence = line.partition("##")
        words = moment.split()
        if len(words) == 3:
            yield clip_row(where, words[0], sentence, words[1:])
        else:
            yield Skip("bad_annotation", where, "is not VIDEO START END##SENTENCE")


DATASETS["charades_sta"] = {
    "train": Split(("charades_sta_train.txt",), read_charades_sta, cuts=True),
    "test": Split(("charades_sta_test.txt",), read_charades_sta, cuts=True),
}
