"""Reading of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from edgenas.data.images import read_image

ORIENTATION = 0x0112  # of EXIF
# A wide picture whose left half is white: rows of (height, width).
WIDE = np.repeat(np.array([[255] * 4 + [0] * 4], np.uint8), 4, axis=0)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, WIDE), (2, WIDE[:, ::-1]), (3, WIDE[::-1, ::-1]), (6, np.rot90(WIDE, -1)), (8, np.rot90(WIDE, 1))],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_photo_of_a_turned_camera_is_read_upright(
    tmp_path: Path, orientation: int, upright: np.ndarray, mode: str
) -> None:
    """Orientation 6 means: turn by 90 degrees clockwise to show it; 8 the other way; 3 by 180; 2 is mirrored (EXIF)."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(WIDE).save(tmp_path / "photo.png", exif=exif)
    image = read_image(tmp_path / "photo.png", mode)
    expected = upright if mode == "L" else np.repeat(upright[..., None], 3, axis=2)
    np.testing.assert_array_equal(image, expected)


def test_damaged_exif_data_spoil_no_photo(tmp_path: Path) -> None:
    """Pixels are intact, so the photo is read as it is stored."""
    Image.fromarray(WIDE).save(tmp_path / "photo.jpg", exif=b"Exif\0\0no TIFF header", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "photo.jpg", "L"), WIDE, atol=2)


def test_a_photo_of_several_pictures_is_read(tmp_path: Path) -> None:
    """Phones write JPEG files with a second picture behind the first (MPO), which is left out."""
    first = Image.fromarray(WIDE)
    first.save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[first.rotate(180)], quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "photo.jpg", "L"), WIDE, atol=2)


def test_a_file_that_would_start_a_program_is_not_read(tmp_path: Path) -> None:
    """PostScript under the name of a photo, which Pillow hands to Ghostscript."""
    Image.fromarray(WIDE).save(tmp_path / "photo.jpg", format="EPS")
    with pytest.raises(UnidentifiedImageError):
        read_image(tmp_path / "photo.jpg")
