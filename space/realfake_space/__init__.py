"""The Gradio page of realfake: what is asked, what is answered, and how it looks."""
