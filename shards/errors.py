"""The one exception that this package raises about what it was given to read or write."""

import errno

# Of a write that found no room the system does not say where.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DatasetError(ValueError):
    """A data set, file or folder is unusable as a whole.

    The message is one line that names the file or folder and says what to do. A single bad sample is
    never this: it is a `clipvip.shards.skips.Skip`.
    """
