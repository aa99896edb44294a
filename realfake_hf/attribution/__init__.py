"""Maps of single pictures: attention, gradients, and what draws them."""
