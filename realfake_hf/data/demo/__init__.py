"""Where the demo data lie: a small stand-in set that ships with the package, so that everything runs offline.

README.md beside this file lists its images, their photographers and licences, and how the fakes were made. A figure
measured on it shows that the code runs; it is never a result.
"""

from pathlib import Path


def demo_path() -> Path:
    """The parquet file of the demo data; its `split` column says train, validation or test.

    >>> demo_path().name
    'demo.parquet'
    """
    return Path(__file__).with_name("demo.parquet")
