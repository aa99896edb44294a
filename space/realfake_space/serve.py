"""Serve the page until it is interrupted."""

import gc
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realfake_hf.cli import parse, setting

if TYPE_CHECKING:
    from realfake_space.models import Model


@dataclass
class SpaceArguments:
    """The models, and where the page listens."""

    model: list[str] = setting([], "Folders or Hub ids; by default all folders in models/.")
    trust_remote_code: bool = setting(False, "Run code that comes with these models.")
    float32: bool = setting(False, "Predict in float32 also where bfloat16 is faster.")
    host: str | None = setting(None, "Address; by default this machine only.")
    port: int | None = setting(None, "Port; by default the first free one from 7860.")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, load the models, serve; return the exit status."""
    [arguments] = parse(SpaceArguments, argv=argv, description=__doc__)
    from realfake_space.models import find_models

    models: dict[str, Model] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # when a container stops, files are removed as well
    try:
        models = find_models(arguments.model, trust_remote_code=arguments.trust_remote_code, float32=arguments.float32)
        _serve(models, arguments)
    except (OSError, ValueError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("The page is closed.")
    finally:
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, signal.SIG_IGN)
        for model in models.values():
            model.readers.close()
        _kill_processes()  # what waits in this process waits for them
        for model in models.values():
            model.close()
    return 0


def _kill_processes() -> None:
    """Kill all processes that this one started, and theirs, except the tracker, which cleans up after them."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in " ".join(process.cmdline()):
                process.kill()


def _serve(models: "Mapping[str, Model]", arguments: SpaceArguments) -> None:
    threading.Thread(target=_load, args=(models,), daemon=True).start()
    from realfake_space.files import delete_regularly, use_private_folder

    folder = use_private_folder()  # before Gradio is imported, which notes where MCP clients' files go
    from realfake_space.page import build, launch_settings

    next(iter(models.values())).facts  # noqa: B018 - an error of the first model is reported before the page opens
    page = build(models)
    delete_regularly(folder)
    gc.freeze()  # modules and components stay: to search them for garbage would pause the page each time
    page.launch(
        server_name=arguments.host, server_port=arguments.port, prevent_thread_lock=True, **launch_settings(page)
    )
    threading.Event().wait()  # Gradio's own way to wait would wait for open connections in the end as well


def _load(models: "Mapping[str, Model]") -> None:
    for model in models.values():
        with suppress(OSError, ValueError):  # reported to whoever uses the model
            model.facts  # noqa: B018 - loads it
