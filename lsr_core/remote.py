"""Files at an address such as `s3://bucket/name`, of any storage that fsspec knows, with a folder here as cache."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from .errors import InputError
from .files import Folder, cache_folder, write_whole

_TRIES = 3  # to read a file whole


def files_of(place: Path | str | None = None) -> Folder:
    """The files of a store at a folder or an address: without one, at `LSR_STORE`, or in the user's cache."""
    named = str(os.environ.get("LSR_STORE", "") if place is None else place)
    if "://" in named:
        return Remote(named)
    return Folder(cache_folder("LSR_STORE", "records") if place is None else Path(place).expanduser())


class Remote(Folder):
    """The files at an address, which a storage writes whole or not at all; files that were kept are cached here.

    Of a file that two processes keep, the first one stays. Raises `InputError` where the address cannot be used.
    """

    def __init__(self, address: str) -> None:
        from fsspec.core import url_to_fs

        digest = hashlib.sha256(address.encode()).hexdigest()[:12]
        super().__init__(cache_folder("LSR_CACHE", "cache") / digest)
        self.name = address.rstrip("/")
        with self._asking():
            self.storage, self._root = url_to_fs(self.name, use_listings_cache=False)

    def __reduce__(self) -> tuple[type["Remote"], tuple[str]]:
        return Remote, (self.name,)  # another machine has its cache elsewhere

    def has(self, path: Path) -> bool:
        with self._asking():
            return path.exists() or self.storage.exists(self.at(path))

    def keep(self, path: Path, content: bytes) -> None:
        with suppress(FileExistsError), self._asking(FileExistsError):
            self.storage.pipe_file(self.at(path), content, mode="create")
            self._cache(path, content)

    def kept(self, path: Path, is_sound: Callable[[bytes], bool]) -> bytes:
        if path.exists() and is_sound(content := path.read_bytes()):
            return content
        for _ in range(_TRIES):
            content = self.read(path)
            if is_sound(content):
                self._cache(path, content)
                break
        return content

    def write(self, path: Path, content: bytes) -> None:
        with self._asking():
            self.storage.pipe_file(self.at(path), content)

    def read(self, path: Path) -> bytes:
        with self._asking(FileNotFoundError):
            return self.storage.cat_file(self.at(path))

    def remove(self, path: Path) -> None:
        super().remove(path)
        with suppress(FileNotFoundError), self._asking(FileNotFoundError):
            self.storage.rm_file(self.at(path))

    def find(self, pattern: str) -> Iterable[Path]:
        folder = pattern.split("/")[0]
        root = f"{self._root}/{folder}" if folder.isalpha() else self._root
        with suppress(FileNotFoundError), self._asking(FileNotFoundError):
            found = (Path(name).relative_to(self._root) for name in self.storage.find(root))
            return [self.path / name for name in found if fnmatch(str(name), pattern)]
        return []

    def check_writable(self) -> None:
        probe = self.path / "probes" / secrets.token_hex(8)
        self.write(probe, b"")
        self.remove(probe)

    def at(self, path: Path) -> str:
        return f"{self._root}/{path.relative_to(self.path).as_posix()}"

    def _cache(self, path: Path, content: bytes) -> None:
        with suppress(OSError):  # a full disk makes this machine slower, and loses nothing
            write_whole(path, content)

    @contextmanager
    def _asking(self, *expected: type[Exception]) -> Iterator[None]:
        """Raise `InputError` for whatever a storage's own client raises and is not expected."""
        try:
            yield
        except expected:
            raise
        except ImportError as error:
            right = "pip install 'lsr-core[cluster]' brings S3"
            raise InputError(f"{self.name} cannot be used ({error}); {right}") from None
        except Exception as error:
            fact = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"results at {self.name} cannot be used ({fact}); finished runs are kept") from None
