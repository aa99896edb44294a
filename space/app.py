"""Open the page: `python space/app.py`; with models of your own, `python space/app.py --model runs/mine user/name`."""

import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
if find_spec("realfake_hf") is None:  # the folder runs by itself
    sys.path.append(str(HERE / "realfake_hf.zip"))

import torch  # noqa: E402 - the folder comes first
from transformers.utils.logging import disable_progress_bar  # noqa: E402 - the folder comes first

from realfake_hf.cli import parse  # noqa: E402
from realfake_hf.data.parallel import cores  # noqa: E402
from realfake_space.lineup import line_up  # noqa: E402
from realfake_space.page import build, launch_settings, use_folder_of_its_own  # noqa: E402


@dataclass
class SpaceArguments:
    """Which models, and where the page listens."""

    model: list[str] = field(default_factory=list, metadata={"help": "Folders or Hub ids; all of models/ by default."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with these models."})
    host: str | None = field(
        default=None, metadata={"help": "Address; by default that of Gradio, this machine alone."}
    )
    port: int | None = field(default=None, metadata={"help": "By default the first free one from 7860 on."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, warm up, serve until interrupted; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    [arguments] = parse(SpaceArguments, argv=argv, description=__doc__)
    try:
        lineup = line_up(arguments.model, trust_remote_code=arguments.trust_remote_code)
        next(iter(lineup.values())).detector  # noqa: B018 - a wrong first name is told before the page opens
    except (OSError, ValueError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop, too, leaves nothing behind
    use_folder_of_its_own()
    torch.set_num_threads(max(1, cores() // len(lineup)))  # each model has a queue of its own
    for one in lineup.values():
        threading.Thread(target=lambda one=one: one.detector, daemon=True).start()
    build(lineup).launch(server_name=arguments.host, server_port=arguments.port, **launch_settings())
    return 0


if __name__ == "__main__":
    sys.exit(main())
