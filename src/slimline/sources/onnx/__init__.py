"""ONNX files: read safely, run as torch functions, traced into a Network."""
