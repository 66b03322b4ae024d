"""Explains errors of a bucket: which part is at fault, and what to set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

from slm_vllm.errors import StorageError
from slm_vllm.storage.settings import S3Settings


class Fault(str, Enum):
    """What a user has to look at."""

    ENDPOINT = "endpoint"
    NETWORK = "network"
    TLS = "tls"
    CREDENTIALS = "credentials"
    CLOCK = "clock"
    PERMISSION = "permission"
    BUCKET = "bucket"
    KEY = "key"
    SERVER = "server"
    CHANGED = "changed"
    CHECKSUM = "checksum"
    REQUEST = "request"


class S3Error(StorageError):
    """A bucket that cannot be used as asked.

    Attributes:
        fault: What is to blame.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a moment later."""
        return self.fault in (Fault.NETWORK, Fault.SERVER)

    @property
    def unreachable(self) -> bool:
        """Whether nobody answered, so that nothing is known about the object."""
        return self.fault in (Fault.NETWORK, Fault.SERVER, Fault.ENDPOINT)


_CREDENTIALS = {
    "InvalidAccessKeyId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "InvalidToken": "the session token is not valid",
    "InvalidSecurity": "the credentials are not valid",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "AccountProblem": "the account cannot be used",
    "UserSuspended": "the user of these keys is suspended",
}
_DENIED = ("AccessDenied", "403", "Forbidden", "AllAccessDisabled", "UnauthorizedAccess")
MISSING = ("NoSuchKey", "404", "NotFound")
"""Codes for an object that is not there."""

_BUSY = (
    "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "InternalError",
    "RequestTimeout", "OperationAborted", "Throttling", "RequestLimitExceeded",
)  # fmt: skip
_CUT = ("ResponseStreamingError", "IncompleteReadError", "FlexibleChecksumError")
_QUOTA = ("QuotaExceeded", "XMinioAdminBucketQuotaExceeded")
_WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
_NO_S3 = (
    "{where} does not speak S3. Is CLEARML_S3_ENDPOINT the port of the API (MinIO's console has "
    "another)?"
)
_OR_MISSING = (
    ". Or the object is missing: servers answer so too where the keys may not list the bucket "
    "(s3:ListBucket), and then a new key cannot be told from one that is there"
)
_BAD_BUCKET = "'{bucket}' cannot be the name of a bucket. Correct CLEARML_S3_BUCKET or --bucket"
_NEW_KEYS = "Set CLEARML_S3_ACCESS_KEY and CLEARML_S3_SECRET_KEY again"
# What a code means whatever was asked.
_TOLD: tuple[tuple[tuple[str, ...], Fault, str], ...] = (
    (
        ("RequestTimeTooSkewed", "RequestExpired"),
        Fault.CLOCK,
        "this machine's clock differs from the server's ({words}). Set it",
    ),
    (("InvalidBucketName",), Fault.BUCKET, _BAD_BUCKET),
    (
        ("KeyTooLongError", "XMinioInvalidObjectName", "InvalidURI"),
        Fault.KEY,
        "the server refuses the key '{key}' ({words}). Use another",
    ),
    (
        ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "307"),
        Fault.ENDPOINT,
        "the bucket belongs to another region or endpoint ({words}). Correct CLEARML_S3_REGION "
        "(now {region}) or CLEARML_S3_ENDPOINT",
    ),
    (
        ("PreconditionFailed", "412", "ConditionalRequestConflict"),
        Fault.CHANGED,
        "somebody else wrote the object meanwhile. Look at it, then try again",
    ),
    (
        ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
        Fault.CHECKSUM,
        "the bytes arrived damaged at the server ({code}). Try again",
    ),
    (
        ("XMinioStorageFull", "StorageFull", "507"),
        Fault.REQUEST,
        "the server has no room left ({words}). Free some, then try again",
    ),
)


@contextmanager
def explained(
    settings: S3Settings, doing: str, bucket: str | None = None, key: str | None = None
) -> Iterator[None]:
    """Turns what boto3 raises into an `S3Error`.

    Args:
        settings: Named in messages; their secrets are taken out of the server's words.
        doing: Begins the message, such as "reading s3://bucket/key".
        bucket: The bucket in question.
        key: The object in question.

    Raises:
        S3Error: boto3 raised something.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        if isinstance(error, ClientError):
            fault, text = _answered(error, settings, bucket, key)
        else:
            fault, text = _unanswered(error, settings, bucket)
        raise S3Error(fault, _redacted(f"{doing} failed: {text}", settings)) from error


def error_code(error: Exception) -> str:
    """The server's word for what is wrong; the status of the answer where it gave none."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code") or "")


def _answered(  # noqa: C901 - one case after the other
    error: Exception, settings: S3Settings, bucket: str | None, key: str | None
) -> tuple[Fault, str]:
    """What the server said."""
    response = getattr(error, "response", {})
    operation = str(getattr(error, "operation_name", ""))
    code = error_code(error)
    message = str(response.get("Error", {}).get("Message") or "").strip()
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    words = f"{code}: {message}" if message and message != code else code or str(status)
    if code in _CREDENTIALS:
        return Fault.CREDENTIALS, (
            f"{_CREDENTIALS[code]} ({code}; keys from {settings.credentials_from}). {_NEW_KEYS}"
        )
    region = f"{settings.region}{_named_region(response)}"
    for codes, fault, text in _TOLD:
        if code in codes:
            return fault, text.format(code=code, words=words, bucket=bucket, key=key, region=region)
    if operation.startswith("ListObjects") and code in ("", "404", "405", "501"):
        # An S3 server names its own errors; a bare status is that of a page boto3 cannot read.
        return Fault.ENDPOINT, _NO_S3.format(where=settings.where)
    if code == "NoSuchBucket" or (code in ("404", "NotFound") and key is None):
        return Fault.BUCKET, (
            f"{settings.where} has no bucket '{bucket}'. Correct CLEARML_S3_BUCKET or --bucket, "
            "or have it made"
        )
    if code in MISSING and operation in _WRITES:
        return Fault.KEY, (
            f"the server does not take the key '{key}' ({words}). Use another, without a leading "
            "/ and without //"
        )
    if code in MISSING:
        return Fault.KEY, f"there is no object '{key}' in bucket '{bucket}'. See: slm-vllm s3 ls"
    if code in _DENIED:
        return Fault.PERMISSION, (
            f"access denied ({words}). The keys from {settings.credentials_from} may not do "
            f"this in bucket '{bucket}': have the policy changed, or use other keys"
            + (_OR_MISSING if operation in ("HeadObject", "GetObject") else "")
        )
    if code in _QUOTA or "quota" in message.lower():
        return Fault.REQUEST, (
            f"a quota of the bucket or of its user is used up ({words}). Delete some objects, or "
            "have it raised"
        )
    if code == "InvalidArgument" and operation == "UploadPart" and "part number" in message.lower():
        return Fault.REQUEST, (
            f"the server allows fewer parts of one upload than the usual 1,000 ({words}). Have "
            "its limit raised"
        )
    if code == "500" and not operation.startswith("Head"):
        return Fault.ENDPOINT, _NO_S3.format(where=settings.where)
    if code in ("NotImplemented", "MethodNotAllowed") or status in (405, 501):
        return Fault.REQUEST, f"the server does not know this operation ({operation}, {words})"
    if code in _BUSY or status >= 500:
        return Fault.SERVER, f"the server is overloaded or broken ({words}). Try again later"
    return Fault.REQUEST, f"the server refused the request ({words})"


def _named_region(response: Mapping[str, Any]) -> str:
    region = response.get("Error", {}).get("Region")
    return f"; the server says {region}" if region else ""


def _unanswered(  # noqa: C901 - likewise
    error: Exception, settings: S3Settings, bucket: str | None
) -> tuple[Fault, str]:
    """What kept an answer from coming."""
    from botocore import exceptions as boto

    where = settings.where
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return Fault.CREDENTIALS, (
            "no credentials were found. Set CLEARML_S3_ACCESS_KEY and CLEARML_S3_SECRET_KEY in "
            ".env or the environment, or name an AWS profile with --profile"
        )
    if isinstance(error, (boto.CredentialRetrievalError, boto.TokenRetrievalError, boto.SSOError)):
        return Fault.CREDENTIALS, f"no credentials from {settings.credentials_from}: {error}"
    if isinstance(error, boto.SSLError):
        return Fault.TLS, (
            f"the certificate of {where} is not accepted, or it does not speak TLS ({error}). "
            "Set CLEARML_S3_VERIFY_SSL to the file with the authority's certificate, or write "
            "http:// in CLEARML_S3_ENDPOINT where the server has no TLS"
        )
    if isinstance(error, boto.ProxyConnectionError):
        return Fault.NETWORK, f"the proxy refuses ({error}). Correct HTTPS_PROXY or NO_PROXY"
    if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError)):
        return Fault.ENDPOINT, (
            f"{where} does not answer ({_cause(error)}). Check CLEARML_S3_ENDPOINT, that the "
            "server runs, and the network between"
        )
    if isinstance(error, boto.ReadTimeoutError):
        return Fault.NETWORK, f"{where} stopped sending. Check the network, then try again"
    if isinstance(error, boto.ParamValidationError) and "Invalid bucket name" in str(error):
        return Fault.BUCKET, _BAD_BUCKET.format(bucket=bucket)
    if isinstance(error, boto.ParamValidationError):
        return Fault.REQUEST, " ".join(str(error).split())
    if isinstance(error, boto.HTTPClientError) or type(error).__name__ in _CUT:
        tls = where.startswith("http://") and isinstance(error, boto.ConnectionClosedError)
        hint = ", or write https:// in CLEARML_S3_ENDPOINT if this is a port with TLS"
        text = f"the connection to {where} broke ({_cause(error)}). Try again"
        return Fault.NETWORK, text + hint * tls
    if "ResponseParserError" in {base.__name__ for base in type(error).__mro__}:
        return Fault.ENDPOINT, _NO_S3.format(where=where)
    return Fault.REQUEST, str(error)


def _cause(error: Exception) -> str:
    """The innermost reason, in the words of the operating system where it has some."""
    text = f"{error} {getattr(error, 'kwargs', {}).get('error', '')}"
    for sign, words in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "unknown host name"),
        ("nodename nor servname", "unknown host name"),
        ("Temporary failure in name resolution", "the host name cannot be looked up"),
        ("No route to host", "no route to host"),
        ("Network is unreachable", "network unreachable"),
        ("timed out", "no answer in time"),
        ("timeout", "no answer in time"),
        ("reset by peer", "connection reset"),
        ("Broken pipe", "connection reset"),
        ("closed", "connection closed"),
        ("IncompleteRead", "the answer ended early"),
        ("expected", "the answer ended early"),
    ):
        if sign in text:
            return words
    return str(error)


def _redacted(text: str, settings: S3Settings) -> str:
    for secret in (settings.secret_key, settings.session_token):
        if secret:
            text = text.replace(secret, "***")
    return text
