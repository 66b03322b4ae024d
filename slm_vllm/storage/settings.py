"""Endpoint and credentials of the bucket, from `.env`, environment, AWS profile and flags.

From weak to strong: `.env`, the environment, a named AWS profile, flags. Of two names for one
thing the project's own (`CLEARML_S3_...`) comes before the standard one (`AWS_...`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from slm_vllm.environment import with_env_file
from slm_vllm.errors import ConfigError
from slm_vllm.paths import expanded

DEFAULT_REGION = "us-east-1"
ARTIFACTS_BUCKET = "CLEARML_S3_ARTIFACTS_BUCKET"

_NAMES: dict[str, tuple[str, ...]] = {
    "endpoint": ("CLEARML_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "bucket": ("CLEARML_S3_BUCKET",),
    "artifacts_bucket": (ARTIFACTS_BUCKET,),
    "region": ("CLEARML_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "path_style": ("CLEARML_S3_PATH_STYLE",),
    "verify_ssl": ("CLEARML_S3_VERIFY_SSL", "AWS_CA_BUNDLE"),
    "profile": ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
}

_KEY_PAIRS = (
    ("CLEARML_S3_ACCESS_KEY", "CLEARML_S3_SECRET_KEY", None),
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to reach a bucket.

    Attributes:
        endpoint: URL of the server; None for Amazon's own.
        bucket: The bucket used where a command or URL names none.
        access_key: None leaves the search for credentials to boto3 (profile, instance role).
        secret_key: Never shown.
        region: Part of every signature; MinIO takes its default whatever the place.
        path_style: `endpoint/bucket/key` instead of `bucket.endpoint/key`.
        verify_ssl: Whether certificates are checked, or the file of authorities to trust.
        profile: The AWS profile that was named, if any.
        session_token: Third part of temporary credentials. Never shown.
        credentials_from: Where the keys came from, for messages.
        artifacts_bucket: The bucket for what runs leave to ClearML, on the same server.
    """

    endpoint: str | None
    bucket: str | None
    access_key: str | None
    secret_key: str | None = field(repr=False)
    region: str
    path_style: bool
    verify_ssl: bool | str
    profile: str | None
    session_token: str | None = field(default=None, repr=False)
    credentials_from: str = "boto3's own search"
    artifacts_bucket: str | None = None

    @property
    def where(self) -> str:
        """The server as messages name it."""
        return self.endpoint or f"Amazon S3 ({self.region})"


@dataclass(frozen=True, slots=True)
class _Keys:
    access: str | None
    secret: str | None
    token: str | None
    source: str


def load_s3_settings(
    flags: Mapping[str, str | None] | None = None, *, env_file: Path | None = None
) -> S3Settings:
    """Gathers the settings; nothing is connected to.

    Args:
        flags: `endpoint`, `bucket`, `region` and `profile`, as far as they are given.
        env_file: Instead of `.env` in the working directory, which may be missing.

    Raises:
        ConfigError: A value cannot be used, a key pair is half given, or a named profile or file
            does not exist.
    """
    variables = with_env_file(env_file)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    values: dict[str, str] = {}
    for name, candidates in _NAMES.items():
        found = next((variables[key] for key in candidates if variables.get(key)), None)
        if found is not None:
            values[name] = found
    keys = _keys(variables)
    profile = given.get("profile") or values.get("profile")
    if profile:
        section = _profile(profile)
        values |= {name: value for name in ("endpoint", "region") if (value := section[name])}
        source = f"AWS profile {profile}"
        keys = _Keys(section["access"], section["secret"], section["token"], source)
    values |= given
    endpoint = _endpoint(values.get("endpoint"))
    return S3Settings(
        endpoint=endpoint,
        bucket=_bucket(values.get("bucket")),
        artifacts_bucket=_bucket(values.get("artifacts_bucket")),
        access_key=keys.access,
        secret_key=keys.secret,
        region=values.get("region", DEFAULT_REGION),
        path_style=_path_style(values.get("path_style"), default=endpoint is not None),
        verify_ssl=_verify(values.get("verify_ssl")),
        profile=profile or None,
        session_token=keys.token,
        credentials_from=keys.source,
    )


def _keys(variables: Mapping[str, str]) -> _Keys:
    """Takes both halves of a pair from names of one family, never a mixture."""
    for access_name, secret_name, token_name in _KEY_PAIRS:
        access, secret = variables.get(access_name), variables.get(secret_name)
        if access and secret:
            token = variables.get(token_name) if token_name else None
            return _Keys(access, secret, token, f"{access_name} and {secret_name}")
        if access or secret:
            there, missing = (access_name, secret_name) if access else (secret_name, access_name)
            raise ConfigError(f"{there} is set and {missing} is not: set both, or neither")
    return _Keys(None, None, None, "boto3's own search")


def _profile(name: str) -> dict[str, str | None]:
    """Reads a profile from AWS's files; one without keys of its own leaves them to boto3."""
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        from slm_vllm.errors import MissingExtraError

        raise MissingExtraError("boto3", "s3", f"AWS profile {name}") from None
    session = Session()
    # AWS_PROFILE may name a profile that a flag replaces.
    session.set_config_variable("profile", name)
    try:
        profiles = session.full_config.get("profiles", {})
    except BotoCoreError as error:
        raise ConfigError(f"AWS profile {name}: {error}") from None
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(
            f"there is no AWS profile '{name}' in ~/.aws/config or ~/.aws/credentials "
            f"(there: {known}). Correct --profile or AWS_PROFILE"
        )
    section = profiles[name]
    wanted = {
        "endpoint": "endpoint_url",
        "region": "region",
        "access": "aws_access_key_id",
        "secret": "aws_secret_access_key",
        "token": "aws_session_token",
    }
    return {ours: section.get(theirs) for ours, theirs in wanted.items()}


def _endpoint(value: str | None) -> str | None:
    if not value:
        return None
    text = value.strip().rstrip("/")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(
            f"the S3 endpoint '{text}' is not a URL. Write it with scheme and port, for example "
            "CLEARML_S3_ENDPOINT=http://minio.example:9000"
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "the S3 endpoint holds a user name or password. Put them into CLEARML_S3_ACCESS_KEY "
            "and CLEARML_S3_SECRET_KEY"
        )
    return text


def _bucket(value: str | None) -> str | None:
    if not value:
        return None
    name = value.strip().removeprefix("s3://").strip("/")
    if not name or "/" in name:
        raise ConfigError(
            f"'{value}' is not the name of a bucket. Give the name alone, such as "
            "CLEARML_S3_BUCKET=datasets"
        )
    return name


def _path_style(value: str | None, *, default: bool) -> bool:
    if value is None:
        return default
    text = value.strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ConfigError(f"CLEARML_S3_PATH_STYLE={value}: write true or false")
    return text in _TRUE


def _verify(value: str | None) -> bool | str:
    if value is None:
        return True
    text = value.strip()
    if text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    try:
        path = expanded(text)
    except ValueError as error:
        raise ConfigError(f"CLEARML_S3_VERIFY_SSL={error}") from None
    if not Path(path).is_file():
        raise ConfigError(
            f"CLEARML_S3_VERIFY_SSL={text}: there is no such file. Write true, false, or the path "
            "of a file with the certificates of the authorities to trust"
        )
    return path
