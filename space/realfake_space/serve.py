"""Start the page: parse, warm up, serve until interrupted."""

import gc
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from realfake_hf.cli import parse
from realfake_space.lineup import Contestant, line_up


@dataclass
class SpaceArguments:
    """Which models, and where the page listens."""

    model: list[str] = field(default_factory=list, metadata={"help": "Folders or Hub ids; all of models/ by default."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with these models."})
    float32: bool = field(
        default=False, metadata={"help": "Judge in float32 also where the processor has bfloat16, which is faster."}
    )
    host: str | None = field(
        default=None, metadata={"help": "Address; by default that of Gradio, this machine alone."}
    )
    port: int | None = field(default=None, metadata={"help": "By default the first free one from 7860 on."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, warm up, serve until interrupted; give the exit status."""
    [arguments] = parse(SpaceArguments, argv=argv, description=__doc__)
    lineup: dict[str, Contestant] = {}
    try:
        lineup = line_up(arguments.model, trust_remote_code=arguments.trust_remote_code, float32=arguments.float32)
        threading.Thread(target=_warm, args=(lineup,), daemon=True).start()
        from realfake_space.page import build, launch_settings, use_folder_of_its_own

        next(iter(lineup.values())).facts  # noqa: B018 - a wrong first name is told before the page opens
    except (OSError, ValueError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        for one in lineup.values():
            one.close()
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop, too, leaves nothing behind
    use_folder_of_its_own()
    page = build(lineup)
    gc.freeze()  # what is imported and built stays: to look through all of it for garbage halts the page each time
    page.launch(server_name=arguments.host, server_port=arguments.port, **launch_settings())
    return 0


def _warm(lineup: Mapping[str, Contestant]) -> None:
    for one in lineup.values():
        with suppress(OSError, ValueError):  # told to whom asks for the model
            one.facts  # noqa: B018 - loads it
