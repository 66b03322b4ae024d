"""Makes a boto3 client that works with MinIO and Amazon S3."""

from __future__ import annotations

from typing import Any

from slm_vllm.errors import ConfigError, MissingExtraError
from slm_vllm.storage.settings import S3Settings


def make_client(
    settings: S3Settings,
    *,
    attempts: int = 3,
    connect_timeout: float = 10.0,
    read_timeout: float = 60.0,
) -> Any:
    """Makes a client; nothing is connected to yet.

    Args:
        settings: Where and who.
        attempts: Tries of each request in all, with growing pauses between.
        connect_timeout: Seconds.
        read_timeout: Seconds without a byte after which a connection counts as dead.

    Raises:
        MissingExtraError: boto3 is not installed.
        ConfigError: boto3 refuses the endpoint, region or profile.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise MissingExtraError("boto3", "s3", "Using an S3 bucket") from None
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        retries={"mode": "standard", "max_attempts": attempts},
        # Older MinIO and other servers refuse the checksum trailers that boto3 adds by itself;
        # the transfers here send Content-MD5, which they all check.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if settings.path_style else "auto",
            # The signed Content-MD5 covers the bytes; hashing them again would only cost time.
            "payload_signing_enabled": False,
        },
    )
    # Keys of its own keep boto3 from looking at a profile that is of no concern here.
    if settings.access_key:
        session = boto3.Session(
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            aws_session_token=settings.session_token,
            region_name=settings.region,
        )
    else:
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
    try:
        return session.client(
            "s3",
            endpoint_url=settings.endpoint,
            verify=settings.verify_ssl,
            config=config,
        )
    except (ValueError, BotoCoreError) as error:
        raise ConfigError(
            f"the S3 settings cannot be used: {error}. Check CLEARML_S3_ENDPOINT "
            "and CLEARML_S3_REGION"
        ) from None
