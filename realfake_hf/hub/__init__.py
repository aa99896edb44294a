"""Publishing on the Hugging Face Hub: model card, upload, ONNX export, and the folder of the Space."""
