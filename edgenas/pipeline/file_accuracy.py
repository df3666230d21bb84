"""The accuracy of a model file: the file itself is run in its own runtime, on images of the run."""

from __future__ import annotations

import numpy as np

from edgenas.export import top1_accuracy
from edgenas.pipeline.prepared_model import PreparedModel
from edgenas.runtimes import ExportFormat


def accuracy_on_test_images(prepared: PreparedModel, export_format: ExportFormat, model: bytes) -> float:
    """Return a file's share of the test images, which never decide anything, which it classifies correctly."""
    data = prepared.workspace.data
    batches = data.to_batches(data.test.images, prepared.architecture.image_size)
    logits = np.concatenate([export_format.runtime.run(model, batch) for batch in batches])
    return top1_accuracy(logits, data.test.labels)
