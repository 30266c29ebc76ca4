"""The location of a cohort: a folder, or an address in object storage (`s3://`, `gs://`, `az://`, `https://`)."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import track

from compseg.errors import CompsegError
from compseg.log import console

if TYPE_CHECKING:
    from obstore.store import ObjectStore as RemoteStore
    from zarr.storage import ObjectStore

Location = Path | str
"""A folder; or a URL as a string, because `Path` would make one slash of two."""

UPLOADS = 8  # at a time: a cohort has many small files, and each waits for an answer

# Where each kind of storage takes its credentials from.
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}


def location(path: str | Path) -> Location:
    """A folder as a `Path`, a URL as a string without slashes at its end."""
    return str(path).rstrip("/") if is_url(path) else Path(path)


def is_url(path: str | Path) -> bool:
    """Whether this names object storage."""
    return re.match(r"[a-z][a-z0-9+.-]+://", str(path)) is not None


def open_store(where: Location) -> Path | ObjectStore[RemoteStore]:
    """What Zarr reads from: the folder, or a read-only store of objects.

    Addresses, keys and regions come from the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
    `GOOGLE_APPLICATION_CREDENTIALS` and so on), never from a configuration, which is kept with every run.

    Raises:
        CompsegError: The extra `remote` is not installed, or the address is not valid.
    """
    if isinstance(where, Path):
        return where
    from zarr.storage import ObjectStore

    return ObjectStore(_objects(where), read_only=True)


def exists(where: Location) -> bool:
    """Whether there is something: a folder, or a Zarr group below the address.

    Raises:
        CompsegError: The storage does not answer, or refuses.
    """
    if isinstance(where, Path):
        return where.exists()
    errors = read_errors(where)
    try:
        # This one object, not a listing: reading must not need the permission to list a bucket.
        return holds(where, "zarr.json")
    except errors as error:
        raise CompsegError(f"{where}: {reason(error)}; {_advice(where)}") from error


def revision(where: Location) -> object:
    """What changes when the root's `zarr.json` is written again; None where it is absent or the storage is silent.

    One look at a file, or one request: cheap enough for every epoch.
    """
    try:
        if isinstance(where, Path):
            found = (where / "zarr.json").stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        import obstore

        meta = obstore.head(_objects(where), "zarr.json")
        return meta["e_tag"], str(meta["last_modified"]), meta["size"]
    except read_errors(where):
        return None


def holds(where: Location, file: str) -> bool:
    """Whether a file, or an object, is there."""
    if isinstance(where, Path):
        return (where / file).is_file()
    import obstore

    try:
        obstore.head(_objects(where), file)
    except FileNotFoundError:
        return False
    return True


def read_errors(where: Location) -> tuple[type[Exception], ...]:
    """What reading stored arrays raises where bytes are damaged, missing or not accessible."""
    # Metadata that cannot be meant takes Zarr to the last four of these.
    local = (OSError, ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, AttributeError, AssertionError)
    if isinstance(where, Path):
        return local
    from obstore.exceptions import BaseError

    return (*local, BaseError)


def reason(error: BaseException) -> str:
    """An exception's message in one line, without the lines for debugging that obstore adds."""
    # S3 answers with a page of XML, of which the lines before it are the message.
    words = str(error).split("\n\nDebug source")[0]
    return " ".join(re.sub(r"<\?xml.*", "", words, flags=re.DOTALL).split()) or type(error).__name__


def upload(folder: Path, url: str, progress: bool = True) -> None:
    """Copy a cohort to object storage, all of it or nothing.

    The root's `zarr.json`, without which there is no cohort, is deleted first and written last.

    Args:
        folder: The cohort.
        url: The address to copy it to, for example `s3://bucket/mine.zarr`.
        progress: Whether to show progress on stderr.

    Raises:
        CompsegError: The storage does not answer, or refuses.
    """
    objects, errors = _objects(url), read_errors(url)
    import obstore

    files = [file for file in folder.rglob("*") if file.is_file() and file != folder / "zarr.json"]

    def put(file: Path) -> None:
        obstore.put(objects, file.relative_to(folder).as_posix(), file)

    try:
        # Stopped half-way, new arrays under the table of an old cohort would be read as a cohort that never was.
        if exists(url):
            obstore.delete(objects, "zarr.json")
        with ThreadPoolExecutor(UPLOADS) as pool:
            done = pool.map(put, files)
            # Taken to the end, because an upload's exception comes out only where its result is taken.
            for _ in track(done, f"Uploading to {url}", len(files), console=console(), disable=not progress):
                pass
        put(folder / "zarr.json")
    except errors as error:
        raise CompsegError(f"{url}: cannot be written ({reason(error)}); {_advice(url)}") from error


def _advice(url: str) -> str:
    names = _CREDENTIALS.get(url.partition("://")[0])
    return "check the address, the network" + (f" and the credentials ({names})" if names else " and the server")


def _objects(url: str) -> RemoteStore:
    """The store of objects below an address; nothing is fetched yet."""
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise CompsegError(f"{url}: needs obstore; pip install 'compseg[remote]'") from error
    from obstore.exceptions import BaseError

    try:
        # With obstore's defaults it takes minutes until a wrong address is reported.
        patience: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}
        # obstore refuses http:// by default, but any web server is enough to read from.
        return from_url(url, client_options={"allow_http": True}, retry_config=patience)
    except (BaseError, ValueError, TypeError) as error:
        raise CompsegError(f"{url}: {reason(error)}; expected s3://, gs://, az:// or https://") from error
