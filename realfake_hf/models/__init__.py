"""Models of this project's own; each file stands alone and can travel with its weights."""
