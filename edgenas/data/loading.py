"""Finding a data set by its name or folder."""

from __future__ import annotations

from pathlib import Path

from edgenas.data.data_set import DataSet, check_data_set
from edgenas.data.image_folder import load_image_folder
from edgenas.errors import EdgeNASError, UsageError
from edgenas.registry import DATA_SETS


def load_data(name: str) -> DataSet:
    """Return a data set by its name, or the path of a folder of images.

    Raises:
        UsageError: for an unknown name, with the nearest known ones, and for a folder that nothing can be trained on.
    """
    if "/" in name or (name not in DATA_SETS.names() and Path(name).is_dir()):
        folder = load_image_folder(Path(name))
        check_data_set(folder, folder.name)
        return folder
    load = DATA_SETS.load(name)
    try:
        data_set: DataSet = load()
        check_data_set(data_set, name)
    except EdgeNASError:
        raise
    except Exception as error:  # whatever another package's function raises
        raise UsageError(f"data set {name!r} cannot be made ({type(error).__name__}: {error})") from error
    return data_set
