"""The Gradio page of realfake."""
