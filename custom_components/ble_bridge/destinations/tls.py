"""TLS: what the broker's certificate is checked against, and what went wrong with it."""

from collections.abc import Sequence
import contextlib
from pathlib import Path
import ssl
import tempfile
from typing import Any, Final, override

from .errors import Problem

# X.509 verification results of OpenSSL.
_EXPIRED: Final = 10
_WRONG_NAMES: Final = frozenset({62, 64})  # Host name, IP address
# Alerts with which a broker turns down a client certificate, or the lack of one
# (RFC 8446, 6.2), as OpenSSL names them.
_CLIENT_ALERTS: Final = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
)
_HANDSHAKE_FAILURE: Final = "SSLV3_ALERT_HANDSHAKE_FAILURE"


def tls_problem(err: ssl.SSLError) -> Problem:
    """Return what an error of TLS means to the user."""
    if isinstance(err, ssl.SSLCertVerificationError):
        if err.verify_code == _EXPIRED:
            return Problem.CERTIFICATE_EXPIRED
        if err.verify_code in _WRONG_NAMES:
            return Problem.CERTIFICATE_NAME
        return Problem.CERTIFICATE_UNTRUSTED
    if err.reason in _CLIENT_ALERTS:
        return Problem.CLIENT_CERTIFICATE_REFUSED
    return Problem.TLS_FAILED


class _TlsSocket(ssl.SSLSocket):
    """A socket that has its context remember what the broker had against us.

    With TLS 1.3 a broker looks at the client certificate when our side of the handshake is
    over, so that its alert comes with the first read. paho would take it for any other end.
    """

    def _remember(self, problem: Problem) -> None:
        """Remember what went wrong."""
        if isinstance(self.context, TlsContext):
            self.context.problem = problem

    @override
    def do_handshake(self, block: bool = False) -> None:
        """Shake hands; raises SSLError."""
        try:
            super().do_handshake(block)
        except ssl.SSLError as err:
            # With TLS 1.2 a broker that misses a client certificate says no more than
            # this; but it had agreed to a cipher by then, which is all else that fails.
            missed = err.reason == _HANDSHAKE_FAILURE and self.cipher() is not None
            self._remember(
                Problem.CLIENT_CERTIFICATE_REFUSED if missed else tls_problem(err)
            )
            self.close()  # paho would leave it to the garbage collector
            raise
        except OSError:
            self.close()
            raise

    @override
    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive; raises OSError."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLWantReadError, ssl.SSLWantWriteError:
            raise
        except ssl.SSLError as err:
            self._remember(tls_problem(err))
            raise

    @override
    def send(self, data: Any, flags: int = 0) -> int:
        """Send; raises OSError."""
        try:
            return super().send(data, flags)
        except ssl.SSLWantReadError, ssl.SSLWantWriteError:
            raise
        except OSError:
            # Who hangs up has perhaps said why, and nobody would read it any more.
            with contextlib.suppress(OSError):
                self.recv(1)
            raise


class TlsContext(ssl.SSLContext):
    """What the broker's certificate is checked against, and what was wrong with it.

    `server_name` stands in for the address, in what is asked for (SNI) and checked.
    """

    sslsocket_class = _TlsSocket
    server_name: str | None = None
    problem: Problem | None = None

    @override
    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Wrap a socket for the server name."""
        if self.server_name is not None:
            kwargs["server_hostname"] = self.server_name
        return super().wrap_socket(*args, **kwargs)


def tls_context(
    *,
    ca: str | None,
    client_certificate: str | None,
    client_key: str | None,
    insecure: bool,
    server_name: str | None,
    alpn: Sequence[str],
) -> TlsContext:
    """Return what the broker's certificate is checked against; blocks.

    Certificates and key are PEM; no `ca` means the system's. Raises SSLError.
    """
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = server_name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca is None:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_default_certs()
    else:
        # Not strict: few home-made authorities have all the extensions of RFC 5280.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=ca)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    if client_certificate and client_key:
        # OpenSSL reads a certificate from a file only.
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = Path(directory, "certificate"), Path(directory, "key")
            certificate.write_text(client_certificate)
            key.write_text(client_key)  # The directory is for our eyes only
            context.load_cert_chain(certificate, key)
    return context
