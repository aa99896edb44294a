"""Show where detectors look: `explain.py --model space/models/cifake-cnn --images photos/ --output_dir runs/why`.

`explain.py --study` measures whether explanations agree and are faithful; `--study --help` lists its settings.
"""

import sys
from collections.abc import Sequence
from typing import Final

from realfake_hf.cli import parse
from realfake_hf.console import run_command
from realfake_hf.explain.arguments import ExplainArguments
from realfake_hf.explain_study.arguments import StudyArguments

STUDY: Final = "--study"


def main(argv: Sequence[str] | None = None) -> int:
    """Explain images or run the study, and print the results; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if STUDY in words:
        [study] = parse(StudyArguments, argv=[word for word in words if word != STUDY], description=__doc__)
        return run_command(lambda: _study(study), name="explain.py", resumable=study.output_dir)
    [arguments] = parse(ExplainArguments, argv=words, description=__doc__)
    return run_command(lambda: _explain(arguments), name="explain.py")


def _explain(arguments: ExplainArguments) -> int:
    from realfake_hf.explain.gallery import make_gallery

    gallery = make_gallery(arguments)
    print(gallery.to_markdown())
    print(f"\nimages, sheets and explanations.json: {gallery.folder}")
    if gallery.unreadable:
        print(f"\nexplain.py: {gallery.name_unreadable()}", file=sys.stderr)
    if gallery.interrupted:
        print(f"\nexplain.py: interrupted; {gallery.n:,} explained images are in {gallery.folder}", file=sys.stderr)
        return 130
    return 1 if gallery.unreadable else 0


def _study(arguments: StudyArguments) -> int:
    from realfake_hf.explain_study.report import publish_study
    from realfake_hf.explain_study.run import run_study

    print("\n\n".join(publish_study(*run_study(arguments), arguments)))
    return 0
