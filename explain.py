"""Show where detectors looked: `explain.py --model space/models/cifake-cnn --images photos/ --output_dir runs/why`."""

import logging
import sys
from collections.abc import Sequence

from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.explain.arguments import ExplainArguments
from realfake_hf.explain.gallery import make_gallery


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, explain, print what was found; give the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files; the pictures keep theirs
    [arguments] = parse(ExplainArguments, argv=argv, description=__doc__)
    try:
        gallery = make_gallery(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted; what is done, if anything, stays in {arguments.output_dir}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"explain.py: {error}", file=sys.stderr)
        return 1
    print(gallery.to_markdown())
    print(f"\npictures, sheets and explanations.json: {gallery.folder}")
    if gallery.unreadable:
        print(f"\nexplain.py: {gallery.name_unreadable()}", file=sys.stderr)
    if gallery.interrupted:
        print(f"\ninterrupted; {gallery.n:,} explained pictures stay in {gallery.folder}", file=sys.stderr)
        return 130
    return 1 if gallery.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
