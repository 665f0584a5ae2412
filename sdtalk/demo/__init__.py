"""The browser demo: a Gradio page around the pipeline (needs the extra `demo`)."""
