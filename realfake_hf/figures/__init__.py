"""Figures that several slices share: training runs, images with maps, comparisons of models, and their common style.

Figures are made without pyplot and change no rcParams, so that no state is left behind and threads can draw in
parallel. Sizes suit a page 800 pixels wide. Colours are from Okabe & Ito (2008), *Color Universal Design*: REAL blue,
FAKE vermillion. Each function raises ValueError if there is nothing to draw, or if shapes or ranges are wrong.
"""
