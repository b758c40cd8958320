"""The one exception that this package raises about a checkpoint it was given."""


class CheckpointError(ValueError):
    """A checkpoint folder or file cannot be loaded; the message is one line and says what does not match."""
