"""Attribution maps of images, from attention and from gradients, and their overlays."""
