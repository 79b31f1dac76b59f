"""Archives for tests of downloads, and a server on this machine that hands them out."""

import hashlib
import http.server
import io
import tarfile


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of a file named cut.* only the first half, though it promises all."""

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        content = source.read()
        half = "cut" in self.path
        outputfile.write(content[: len(content) // 2] if half else content)


def md5(content):
    return hashlib.md5(content).hexdigest()


def tar_of(files):
    """The bytes of a compressed tar file, from contents by name."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def is_empty(folder):
    """Whether a folder holds nothing but locks."""
    return all(file.name.endswith(".lock") for file in folder.iterdir())
