"""Certificates: the site's own authority, and the certificates that it issues for gateways.

Pure: PEM text in, PEM text out. Files are read and written by llmhost/gateway/authority.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
# For a host whose clock is behind the controller's a new certificate would not yet be valid.
CLOCK_TOLERANCE = timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its public certificate and its private key."""

    certificate: bytes
    key: bytes

    def issue(self, names: Iterable[str], now: datetime, days: int) -> bytes:
        """A server's certificate for these names and addresses, followed by its new key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        sorted_names = sorted(names)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, sorted_names[0][:64])])
        issuer = x509.load_pem_x509_certificate(self.certificate)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            _builder(subject, issuer.subject, key.public_key(), now, days)
            .add_extension(x509.SubjectAlternativeName(map(_general, sorted_names)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(_elliptic(issuer)),
                critical=False,
            )
        )
        return _pem(builder.sign(_private(self.key), hashes.SHA256())) + _pem_key(key)


def new_authority(now: datetime) -> Authority:
    """A new authority, valid for ten years."""
    key = _pem_key(ec.generate_private_key(ec.SECP256R1()))
    return Authority(authority_certificate(key, now), key)


def authority_certificate(key: bytes, now: datetime) -> bytes:
    """A certificate for an authority's key, signed by itself."""
    private = _private(key)
    public = private.public_key()
    # The identifier distinguishes authorities of several sites in one trust store.
    number = x509.SubjectKeyIdentifier.from_public_key(public)
    name = f"llmhost authority {number.digest.hex()[:8]}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, subject, public, now, AUTHORITY_DAYS)
        .add_extension(number, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _pem(builder.sign(private, hashes.SHA256()))


def names_in(certificate: bytes) -> set[str]:
    """The names and addresses that a certificate (PEM) is for."""
    found = x509.load_pem_x509_certificate(certificate)
    try:
        alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = alternative.get_values_for_type(x509.IPAddress)
    return {*alternative.get_values_for_type(x509.DNSName), *map(str, addresses)}


def belongs_to(certificate: bytes, public_key: bytes) -> bool:
    """Whether a certificate is for this public key; False if one of them cannot be read."""
    try:
        key = serialization.load_pem_public_key(public_key)
        return x509.load_pem_x509_certificate(certificate).public_key() == key
    except (ValueError, UnsupportedAlgorithm):
        return False


def why_renew(
    certificate: bytes, authority: bytes, names: Iterable[str], now: datetime, renew_days: int
) -> str:
    """Why a server's certificate (PEM) must be renewed, as a sentence; empty if it need not be."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return "the certificate was not issued by this site's authority"
    if missing := sorted(set(names) - names_in(certificate)):
        return f"the certificate is not for {', '.join(missing)}"
    if found.not_valid_after_utc < now + timedelta(days=renew_days):
        return f"the certificate expires on {found.not_valid_after_utc:%Y-%m-%d}"
    return ""


def pair_faults(
    certificate: bytes, key: bytes, names: Iterable[str], now: datetime
) -> dict[str, str]:
    """Mistakes in a site's own certificate and key (PEM), by option."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        return {"certificate": "contains no certificate in PEM format"}
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except TypeError:
        return {"certificate_key": "is encrypted, so nginx could not start unattended"}
    except ValueError:
        return {"certificate_key": "contains no PEM private key (-----BEGIN PRIVATE KEY-----)"}
    if found.public_key() != private.public_key():
        return {"certificate_key": "does not belong to the certificate"}
    if found.not_valid_after_utc <= now:
        return {"certificate": f"expired on {found.not_valid_after_utc:%Y-%m-%d}"}
    if missing := sorted(set(names) - names_in(certificate)):
        return {"certificate": f"is not for {', '.join(missing)}, which gateway_names lists"}
    return {}


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_TOLERANCE)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _elliptic(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return public


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    private = serialization.load_pem_private_key(key, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
