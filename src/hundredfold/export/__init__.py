"""Export a run for other programs: ONNX, torch.export and the Hugging Face Hub."""
