"""Explanations of images: figures of attention and gradient maps, each with the verdict that it explains."""
