"""Serve the page until it is interrupted."""

import gc
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from realfake_hf.cli import parse

if TYPE_CHECKING:
    from realfake_space.models import Model


@dataclass
class SpaceArguments:
    """The models, and where the page listens."""

    model: list[str] = field(
        default_factory=list, metadata={"help": "Folders or Hub ids; by default all folders in models/."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with these models."})
    float32: bool = field(default=False, metadata={"help": "Predict in float32 also where bfloat16 is faster."})
    host: str | None = field(default=None, metadata={"help": "Address; by default this machine only."})
    port: int | None = field(default=None, metadata={"help": "Port; by default the first free one from 7860."})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, load the models, serve; return the exit status."""
    [arguments] = parse(SpaceArguments, argv=argv, description=__doc__)
    from realfake_space.models import find_models

    models: dict[str, Model] = {}
    try:
        models = find_models(arguments.model, trust_remote_code=arguments.trust_remote_code, float32=arguments.float32)
        threading.Thread(target=_load, args=(models,), daemon=True).start()
        from realfake_space.page import build, launch_settings, use_private_folder

        next(iter(models.values())).facts  # noqa: B018 - an error of the first model is reported before the page opens
    except (OSError, ValueError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        for model in models.values():
            model.close()
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # when a container stops, files are removed as well
    use_private_folder()
    page = build(models)
    gc.freeze()  # modules and components stay: to search them for garbage would pause the page each time
    page.launch(server_name=arguments.host, server_port=arguments.port, **launch_settings(page))
    return 0


def _load(models: "Mapping[str, Model]") -> None:
    for model in models.values():
        with suppress(OSError, ValueError):  # reported to whoever uses the model
            model.facts  # noqa: B018 - loads it
