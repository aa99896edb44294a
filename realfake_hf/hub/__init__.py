"""From finished runs to what others read: results files, the README's tables, cards."""
