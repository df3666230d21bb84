"""ONNX files: written from parts and weights, opened in onnxruntime."""
