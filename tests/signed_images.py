"""Images signed with Content Credentials, by signers whose certificates are made here."""

import io
from datetime import UTC, datetime, timedelta
from functools import cache

from c2pa import Builder, C2paBuilderIntent, C2paSignerInfo, C2paSigningAlg, Context, Signer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_SETTINGS = {"verify": {"verify_after_sign": False}, "builder": {"thumbnail": {"enabled": False}}}


def name_of(organisation: str, name: str) -> x509.Name:
    """Return the name of a certificate."""
    attributes = {NameOID.ORGANIZATION_NAME: organisation, NameOID.COMMON_NAME: name}
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in attributes.items()])


def _certificate(
    subject: x509.Name, key: EllipticCurvePrivateKey, issuer: x509.Name, issuer_key: EllipticCurvePrivateKey,
    *, is_authority: bool,
) -> bytes:  # fmt: skip
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    usage |= {"digital_signature": not is_authority, "key_cert_sign": is_authority, "crl_sign": is_authority}
    now = datetime.now(UTC)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer_key, SHA256()).public_bytes(Encoding.PEM)


@cache
def signer_of(organisation: str) -> tuple[str, str, str]:
    """Return the chain of certificates, the key and the authority of a signer, in PEM."""
    authority, root = name_of("Test authority", "Root"), generate_private_key(SECP256R1())
    anchor = _certificate(authority, root, authority, root, is_authority=True)
    subject, key = name_of(organisation, "A camera"), generate_private_key(SECP256R1())
    leaf = _certificate(subject, key, authority, root, is_authority=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (leaf + anchor).decode(), private.decode(), anchor.decode()


def signed(
    data: bytes, kind: str = "image/jpeg", *, by: str = "A newsroom", source: str = "digitalCapture",
    tool: str = "A program", parent: bytes | None = None,
) -> bytes:  # fmt: skip
    """Return an image with Content Credentials that state its digital source type, and that of an earlier version."""
    chain, key, _ = signer_of(by)
    action = {"action": "c2pa.created" if parent is None else "c2pa.edited", "digitalSourceType": IPTC + source}
    manifest = {
        "claim_generator_info": [{"name": tool, "version": "1.2"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    target = io.BytesIO()
    info = C2paSignerInfo(C2paSigningAlg.ES256, chain.encode(), key.encode(), None)
    with (
        Context.from_dict(_SETTINGS) as context,
        Signer.from_info(info) as signer,
        Builder(manifest, context) as builder,
    ):
        if parent is not None:
            builder.set_intent(C2paBuilderIntent.EDIT)
            builder.add_ingredient({"title": "before", "relationship": "parentOf"}, kind, io.BytesIO(parent))
        builder.sign(signer, kind, io.BytesIO(data), target)
    return target.getvalue()
