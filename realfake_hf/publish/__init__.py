"""From finished runs to what others read: results files, the README's tables, cards."""

from typing import Final

PAPER_ACCURACY: Final = 0.9298  # of the best network on CIFAKE's test; Bird & Lotfi (2024), abstract
