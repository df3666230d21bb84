"""Finding the weights that training begins with: those of a run, or of a released checkpoint."""

from __future__ import annotations

from pathlib import Path

from edgenas.errors import RunError, UsageError
from edgenas.files import read_bytes, sha256_hex
from edgenas.ofa.initial_weights import InitialWeights, check_family, check_initial_weights
from edgenas.ofa.released import build_supernet, infer_family
from edgenas.ofa.released_file import read_released_file
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.run_folder import RunFolder
from edgenas.pipeline.workspace import Workspace
from edgenas.space import SearchSpace
from edgenas.space.choices import CHOICE_FIELDS


def load_initial_weights(source: str | Path, space: SearchSpace) -> InitialWeights:
    """Return the weights of a trained or imported run, or of a checkpoint in the format of the released ones.

    Args:
        source: A run folder or a file.
        space: The space that is trained; its choices are those of the network in a file.

    Raises:
        UsageError: There is no such file or folder, or its weights are of another space.
        FormatError: The file is no checkpoint, or tensors do not fit.
        RunError: The folder is no run, or its training has not ended.
    """
    path = Path(source)
    if not path.exists():
        raise UsageError(f"{path}: does not exist; give a run folder, or a file of a released checkpoint")
    if path.is_dir():
        if not RunFolder(path).run.exists():
            raise RunError(f"{path}: is no run folder; give --from a run folder, or a file of a released checkpoint")
        workspace = Workspace(path, None, Silent())
        initial = InitialWeights(workspace.supernet, str(path), workspace.weights_digest)
    elif path.suffix == ".safetensors":
        raise UsageError(f"{path}: is no released checkpoint; to begin with the weights of a run, give the run folder")
    else:
        released = read_released_file(path)
        check_family(space, str(path), infer_family(released))  # first, because each family has choices of its own
        choices = {name: value for name, value in space.to_dict().items() if name in CHOICE_FIELDS}
        initial = InitialWeights(build_supernet(released, choices), str(path), sha256_hex(read_bytes(path)))
    check_initial_weights(space, initial)
    return initial
