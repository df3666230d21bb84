"""TFLite files: written from an ONNX graph without TensorFlow, run in LiteRT."""
