"""Demo data: a small data set that ships with the package, so that everything runs offline.

README.md in this folder lists the photographs with their authors and licenses, and explains how the fakes were made.
Figures measured on the demo data show that the code runs; they are not results.
"""

from pathlib import Path


def demo_path() -> Path:
    """Return the parquet file of the demo data; its column `split` is train, validation or test.

    >>> demo_path().name
    'demo.parquet'
    """
    return Path(__file__).with_name("demo.parquet")
