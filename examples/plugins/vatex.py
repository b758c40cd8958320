"""A source: VATEX, whose files have ten English and ten Chinese sentences of each video.

`clipvip-data shard --dataset vatex/train --annotations FOLDER --videos FOLDER --out FOLDER`. A record that
cannot be used is yielded as a `Skip`, with its reason; a file that cannot be used is a `DatasetError`.
The Chinese sentences are left.
"""

from pathlib import Path

from clipvip.shards.errors import Skip
from clipvip.shards.sources.video_set_files import Rows, make_row, read_json, records_of
from clipvip.shards.sources.video_sets import DATASETS, Split


def read_vatex(path: Path) -> Rows:
    for number, entry in enumerate(records_of(path, read_json(path))):
        where = f"{path.name}, record {number}"
        sentences = entry.get("enCap") if isinstance(entry, dict) else None
        if not isinstance(sentences, list):
            yield Skip("bad_annotation", where, "has no list enCap")
            continue
        for sentence in sentences:
            yield make_row(where, entry.get("videoID"), sentence)


DATASETS["vatex"] = {
    "train": Split(("vatex_training_v1.0.json",), read_vatex),
    "val": Split(("vatex_validation_v1.0.json",), read_vatex),
}
