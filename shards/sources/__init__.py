"""Lists of videos and clips, subtitles and texts as their publishers give them."""
