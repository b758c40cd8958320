"""A loss: videos against captions, and frames against subtitles.

`clipvip-train demo --set loss.pairs=crossed`.
A term is an anchor and its positives, by the letters of the paper: V video, S subtitle, F middle frame, C its
caption.
"""

from clipvip.model.variants import VARIANTS, Term

VARIANTS["crossed"] = [Term("V", "C"), Term("C", "V"), Term("F", "S"), Term("S", "F")]
