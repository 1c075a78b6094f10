"""Bucket keeps the files of datasets in any S3-compatible store, and says in words why it cannot.

Keys are made of the content (`datasets_app.storing`) or of chance (`datasets_app.pending`), so writing a key again
never changes what it holds, and no HEAD is needed to find a free name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from boto3.exceptions import Boto3Error
from botocore import exceptions
from botocore.config import Config
from django.core.files.base import File
from storages.backends.s3 import S3Storage

from lumigator.unavailable import FileStoreUnavailable

# A refused connection is told within 3 s, a host that swallows packets within 12 s, one that accepts and is silent
# within half a minute; botocore's own are 60 s each, five times over.
CLIENT = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"total_max_attempts": 3, "mode": "standard"},
    s3={"addressing_style": "path"},  # the only one that stores without wildcard DNS understand
    signature_version="s3v4",
)
MEMORY = 8 << 20
"""Bytes of an opened file that stay in memory; beyond it lies on disk. django-storages keeps all of it by default."""


class Bucket(S3Storage):  # type: ignore[misc]  # django-storages has no types
    """django-storages' S3 backend with short patience and errors in words.

    Raises FileStoreUnavailable (an OSError) where botocore would raise its own, FileNotFoundError for a missing key.
    What is opened is fetched whole at once, so that reading it cannot fail later.
    """

    def get_default_settings(self) -> dict[str, Any]:
        return super().get_default_settings() | {
            "client_config": CLIENT,
            "max_memory_size": MEMORY,
            "file_overwrite": True,
            "default_acl": None,
            "querystring_expire": 60,  # seconds that a signed address is good for
            # Whatever the browser called it: a signed address never shows somebody's upload as a page of this host.
            "object_parameters": {
                "ContentType": "application/octet-stream",
                "ContentDisposition": "attachment",
            },
        }

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        with self._in_words(name):
            return super()._open(name, mode).open()

    def _save(self, name: str, content: File[Any]) -> str:
        with self._in_words(name):
            return super()._save(name, content)

    def delete(self, name: str) -> None:
        with self._in_words(name):
            super().delete(name)

    def exists(self, name: str) -> bool:
        with self._in_words(name):
            return super().exists(name)

    def listdir(self, name: str) -> tuple[list[str], list[str]]:
        with self._in_words(name):
            return super().listdir(name)

    def size(self, name: str) -> int:
        with self._in_words(name):
            return super().size(name)

    def get_modified_time(self, name: str) -> datetime:
        with self._in_words(name):
            return super().get_modified_time(name)

    @contextmanager
    def _in_words(self, name: str) -> Iterator[None]:
        try:
            yield
        except exceptions.ClientError as error:
            raise self._answered(name, error) from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise self._unavailable(
                "was given no credentials", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from error
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            cure = f"Check that it runs and that AWS_ENDPOINT_URL names it, then try again ({error})."
            raise self._unavailable(f"does not answer ({type(error).__name__})", cure) from error
        except (exceptions.BotoCoreError, Boto3Error) as error:
            cure = f"{type(error).__name__}: {error}. Check AWS_ENDPOINT_URL, S3_BUCKET and AWS_DEFAULT_REGION."
            raise self._unavailable("cannot be used as it is configured", cure) from error

    def _answered(self, name: str, error: exceptions.ClientError) -> OSError:
        """What the store's own refusal means. HEAD has no body, so its code is only the status."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "NoSuchBucket":
            return self._unavailable("does not have the bucket", "Create it there, or correct S3_BUCKET.")
        if status == 404:
            return FileNotFoundError(f"the file store has no {name}")
        if status in (401, 403):
            cure = (
                f"It said {code}: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, that this key may read, write, "
                "list and delete in the bucket, and that the clock of this machine is right."
            )
            return self._unavailable("refuses our credentials", cure)
        if status in (301, 307, 400) and code in ("301", "307", "PermanentRedirect", "AuthorizationHeaderMalformed"):
            return self._unavailable("keeps the bucket in another region", "Correct AWS_DEFAULT_REGION.")
        said = f"{code} {error.response.get('Error', {}).get('Message', '')}".strip()
        return self._unavailable(f"failed (status {status})", f"It said {said}. Try again, then look into its own log.")

    def _unavailable(self, reason: str, cure: str) -> FileStoreUnavailable:
        return FileStoreUnavailable(reason, f"{self.endpoint_url or 'of AWS'} (bucket {self.bucket_name})", cure)
