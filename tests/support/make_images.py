"""A small image-text WebDataset of flat colours."""

import io
import tarfile
from pathlib import Path

from PIL import Image


def make_images(path: Path, number: int) -> Path:
    """An image-text WebDataset of PNG and JPEG files, each a flat colour."""
    with tarfile.open(path, "w") as tar:
        for index in range(number):
            kind = ("png", "jpg")[index % 2]
            data = io.BytesIO()
            Image.new("RGB", (50, 40), (10 * index, 100, 200)).save(data, {"jpg": "jpeg"}.get(kind, kind))
            for extension, content in ((kind, data.getvalue()), ("txt", f"picture {index}".encode())):
                info = tarfile.TarInfo(f"{index:04d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path
