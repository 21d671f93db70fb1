"""TLS in the form of a destination: its fields, what they show, and what is entered."""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.const import CONF_PASSWORD, CONF_USERNAME
from homeassistant.core import HomeAssistant
from homeassistant.helpers.selector import (
    BooleanSelector,
    FileSelector,
    FileSelectorConfig,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)
from homeassistant.util import dt as dt_util
import voluptuous as vol

from ..certificates import check_pair, read_ca, read_client_certificate, read_key
from ..const import (
    CONF_CA,
    CONF_CA_CERTIFICATE,
    CONF_CLIENT_CERTIFICATE,
    CONF_CLIENT_KEY,
    CONF_CLIENT_KEY_PASSWORD,
    CONF_SERVER_NAME,
    CONF_TLS,
    CONF_USE_CLIENT_CERTIFICATE,
    Authorities,
)
from ..forms import TEXT, choice
from ..uploads import Uploads
from .entered import InputError, is_server_name

_CERTIFICATES: Final = (CONF_CA_CERTIFICATE, CONF_CLIENT_CERTIFICATE, CONF_CLIENT_KEY)
# What a destination has of which nothing is said of TLS.
TLS_DEFAULTS: Final[Mapping[str, None]] = dict.fromkeys(
    (CONF_SERVER_NAME, *_CERTIFICATES)
)

_USERNAME: Final = TextSelector(TextSelectorConfig(autocomplete="off"))
_PASSWORD: Final = TextSelector(
    TextSelectorConfig(type=TextSelectorType.PASSWORD, autocomplete="new-password")
)
CREDENTIALS: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_USERNAME): _USERNAME,
    vol.Optional(CONF_PASSWORD): _PASSWORD,
}
_CERTIFICATE: Final = FileSelector(
    FileSelectorConfig(accept=".pem,.crt,.cer,.der,application/x-x509-ca-cert")
)
_KEY: Final = FileSelector(
    FileSelectorConfig(accept=".pem,.key,.der,.p8,.pk8,application/pkcs8")
)
CA_UPLOAD: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_CA_CERTIFICATE): _CERTIFICATE
}
CLIENT_UPLOADS: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_CLIENT_CERTIFICATE): _CERTIFICATE,
    vol.Optional(CONF_CLIENT_KEY): _KEY,
    vol.Optional(CONF_CLIENT_KEY_PASSWORD): _PASSWORD,
}
SERVER_NAME: Final[dict[vol.Marker, Any]] = {vol.Optional(CONF_SERVER_NAME): TEXT}
SECURITY_FIELDS: Final[dict[vol.Marker, Any]] = {
    vol.Optional(CONF_TLS, default=False): BooleanSelector(),
    vol.Optional(CONF_CA, default=Authorities.SYSTEM.value): choice(
        Authorities, CONF_CA
    ),
    **CA_UPLOAD,
    vol.Optional(CONF_USE_CLIENT_CERTIFICATE, default=False): BooleanSelector(),
    **CLIENT_UPLOADS,
    **SERVER_NAME,
}


def suggested_security(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the fields of TLS show."""
    own = data.get(CONF_CA_CERTIFICATE) is not None
    return {
        CONF_TLS: data[CONF_TLS],
        CONF_CA: (Authorities.OWN if own else Authorities.SYSTEM).value,
        CONF_USE_CLIENT_CERTIFICATE: data.get(CONF_CLIENT_CERTIFICATE) is not None,
        CONF_SERVER_NAME: data.get(CONF_SERVER_NAME),
    }


async def async_security(
    hass: HomeAssistant,
    uploads: Uploads,
    said: Mapping[str, Any] | None,
    previous: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what is said of TLS; raises InputError and CertificateError."""
    kept = {key: previous.get(key) for key in TLS_DEFAULTS}
    if said is None:
        return {CONF_TLS: previous.get(CONF_TLS, False), **kept}
    own = said[CONF_CA] == Authorities.OWN
    client = said[CONF_USE_CLIENT_CERTIFICATE]
    used = {CONF_CA_CERTIFICATE: own}
    used |= dict.fromkeys((CONF_CLIENT_CERTIFICATE, CONF_CLIENT_KEY), client)
    if any(said.get(key) and not (use and said[CONF_TLS]) for key, use in used.items()):
        raise InputError("file_unused")
    data = {
        **(await async_certificates(hass, uploads, said, kept)),
        **{key: None for key, use in used.items() if not use},
    }
    if own and data[CONF_CA_CERTIFICATE] is None:
        raise InputError("ca_missing")
    if client and None in (data[CONF_CLIENT_CERTIFICATE], data[CONF_CLIENT_KEY]):
        raise InputError("client_certificate_missing")
    server_name = (said.get(CONF_SERVER_NAME) or "").strip() or None
    if server_name is not None and not is_server_name(server_name):
        raise InputError("invalid_server_name")
    return {CONF_TLS: said[CONF_TLS], **data, CONF_SERVER_NAME: server_name}


async def async_certificates(
    hass: HomeAssistant,
    uploads: Uploads,
    said: Mapping[str, Any],
    kept: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the certificates and the key that were uploaded, else those that are kept.

    Raises InputError where a file is gone, and CertificateError where it cannot be used.
    """
    try:
        files = {
            key: await uploads.async_read(hass, file_id)
            for key in _CERTIFICATES
            if (file_id := said.get(key))
        }
    except ValueError as err:
        raise InputError("upload_gone") from err
    password = said.get(CONF_CLIENT_KEY_PASSWORD)
    return await hass.async_add_executor_job(_read_files, files, password, kept)


def _read_files(
    files: Mapping[str, bytes], password: str | None, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is in files, else what is kept; blocks, raises CertificateError."""
    now = dt_util.utcnow()
    data = {key: kept[key] for key in _CERTIFICATES}
    if ca := files.get(CONF_CA_CERTIFICATE):
        data[CONF_CA_CERTIFICATE] = read_ca(ca, now)
    if certificate := files.get(CONF_CLIENT_CERTIFICATE):
        data[CONF_CLIENT_CERTIFICATE] = read_client_certificate(certificate, now)
    if key := files.get(CONF_CLIENT_KEY):
        data[CONF_CLIENT_KEY] = read_key(key, password)
    pair = data[CONF_CLIENT_CERTIFICATE], data[CONF_CLIENT_KEY]
    if None not in pair:
        check_pair(*pair)
    return data
