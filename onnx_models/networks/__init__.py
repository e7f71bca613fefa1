"""Sequence models in PyTorch: offline only; what they export is served by onnxruntime."""
