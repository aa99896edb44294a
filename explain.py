"""Show where detectors looked: `explain.py --model space/models/cifake-cnn --images photos/ --output_dir runs/why`.

`explain.py --study` measures whether explanations agree and are faithful; `--study --help` lists its settings.
"""

import logging
import sys
from collections.abc import Sequence

from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.explain.arguments import ExplainArguments
from realfake_hf.explain.gallery import make_gallery
from realfake_hf.explain_study.arguments import StudyArguments
from realfake_hf.explain_study.published import publish_study
from realfake_hf.explain_study.run import run_study

STUDY = "--study"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, explain or study, print what was found; give the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files; the pictures keep theirs
    words = list(sys.argv[1:] if argv is None else argv)
    if STUDY in words:
        [asked] = parse(StudyArguments, argv=[word for word in words if word != STUDY], description=__doc__)
        return _study(asked)
    [arguments] = parse(ExplainArguments, argv=words, description=__doc__)
    return _explain(arguments)


def _explain(arguments: ExplainArguments) -> int:
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


def _study(arguments: StudyArguments) -> int:
    try:
        study = run_study(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from {arguments.output_dir}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"explain.py: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(publish_study(study, arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
