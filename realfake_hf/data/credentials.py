"""Verify the Content Credentials of an image with c2pa-python, without network, in a process with limits.

The library is native code, which a hostile file may stop, fill with data or end; here it ends its own process only.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_BYTES: Final = 64 * 2**20
SECONDS: Final = 30  # in which the process must answer
CPU_SECONDS: Final = 5  # that it may compute
MEMORY: Final = 2**30  # bytes of address space

_OFFLINE: Final = {
    "version": 1,
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {"allowed_network_hosts": [], "allow_redirects": False, "decode_identity_assertions": False},
}
_MAX_VALUES: Final = 8  # of each kind
_MAX_TEXT: Final = 200  # characters of a value


class CredentialsError(ValueError):
    """Content Credentials cannot be read, for the reason in the message."""


class TrustListError(ValueError):
    """The certificates to trust cannot be read, for the reason in the message."""


@dataclass(frozen=True)
class Credentials:
    """What the library found of the active manifest.

    Texts are of the file, of at most 200 characters. Unless the state is `Trusted`, anyone can have written them.
    """

    state: str  # `Trusted`, `Valid` (but the signer is not in the trust list) or `Invalid`
    failures: list[str]  # codes of C2PA, of the active manifest, or else of its ingredients
    is_active: bool  # whether the failures are those of the active manifest
    signer: list[str]  # organisation and name in the certificate
    signed_on: str  # date of a time stamp, or empty
    made_with: list[str]  # claim generator and software agents
    sources: list[str]  # digital source types
    earlier: list[str]  # digital source types of ingredients and earlier versions


def verify_credentials(data: bytes, anchors: str) -> Credentials:
    """Verify the Content Credentials in an image file of at most `MAX_BYTES`.

    Args:
        data: of the file.
        anchors: certificates that are trusted, in PEM.

    Raises:
        CredentialsError: they cannot be read within the limits of time and memory.
        TrustListError: the trusted certificates cannot be read.
    """
    if len(data) > MAX_BYTES:
        raise CredentialsError(f"the file is larger than {MAX_BYTES // 2**20} MiB")
    paths = os.pathsep.join(filter(None, sys.path))
    try:
        process = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=anchors.encode() + b"\0" + data,
            capture_output=True,
            check=True,
            timeout=SECONDS,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired as error:
        raise CredentialsError(f"reading them took more than {SECONDS} seconds") from error
    except subprocess.CalledProcessError as error:
        raise CredentialsError(f"they end the process that reads them (status {error.returncode})") from error
    answer = json.loads(process.stdout)
    if "error" in answer:
        raise (TrustListError if answer["is_trust_list"] else CredentialsError)(answer["error"])
    return Credentials(**answer)


def main() -> None:
    """Read trust anchors, a zero byte and a file from standard input; write `Credentials` or an error as JSON."""
    _limit_process()
    anchors, _, data = sys.stdin.buffer.read().partition(b"\0")
    json.dump(_read(data, anchors.decode()), sys.stdout)


def _read(data: bytes, anchors: str) -> dict[str, object]:
    from c2pa import C2paError, Context, Reader

    context = None
    try:
        context = Context.from_dict({**_OFFLINE, "trust": {"trust_anchors": anchors}})
        with Reader("", io.BytesIO(data), context=context) as reader:
            return _summary(json.loads(reader.json()))
    except C2paError as error:
        return {"error": str(error)[:_MAX_TEXT], "is_trust_list": context is None}


def _summary(store: Mapping[str, Any]) -> dict[str, object]:
    active = store["manifests"][store["active_manifest"]]
    others = [manifest for manifest in store["manifests"].values() if manifest is not active]
    results = store.get("validation_results", {})
    failures = _codes(results.get("activeManifest", {}))
    deeper = [code for delta in results.get("ingredientDeltas", ()) for code in _codes(delta["validationDeltas"])]
    signature = active.get("signature_info") or {}
    generators = active.get("claim_generator_info") or [active.get("claim_generator", "")]
    assertions = active.get("assertions", ())
    return {
        "state": store["validation_state"],
        "failures": (failures or deeper)[:_MAX_VALUES],
        "is_active": bool(failures),
        "signer": _texts([signature.get("issuer"), signature.get("common_name")]),
        "signed_on": str(signature.get("time") or "")[:10],
        "made_with": _texts([*generators, *_values(assertions, "softwareAgent")]),
        "sources": _texts(_values(assertions, "digitalSourceType")),
        "earlier": _texts(_values([other.get("assertions", ()) for other in others], "digitalSourceType")),
    }


def _codes(results: Mapping[str, Any]) -> list[str]:
    codes = [str(each["code"]) for each in results.get("failure", ())]
    return [code for code in codes if code != "signingCredential.untrusted"]  # told by the state


def _values(data: object, key: str) -> Iterator[object]:
    """Yield the values of a key anywhere in JSON, whatever its namespace."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            if name.rpartition(":")[2].lower() == key.lower():
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _values(value, key)


def _texts(values: list[object] | Iterator[object]) -> list[str]:
    """Return the different names in values, each a text or a mapping with name and version."""
    texts = []
    for value in values:
        parts = [value.get("name"), value.get("version")] if isinstance(value, Mapping) else [value]
        texts.append(" ".join(part for part in parts if isinstance(part, str))[:_MAX_TEXT])
    return list(dict.fromkeys(filter(None, texts)))[:_MAX_VALUES]


def _limit_process() -> None:
    if sys.platform == "linux":
        import resource

        for kind, limit in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_CPU, CPU_SECONDS),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


if __name__ == "__main__":
    main()
