"""Where a detector looked: attention and gradient maps, each with the verdict that it explains."""
