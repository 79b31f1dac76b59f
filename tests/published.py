"""Published lines, changed with care."""

import hashlib
import json


def sealed(line):
    """A line that was changed by somebody who also changed its checksum."""
    content = {name: value for name, value in line.items() if name != "checksum"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return json.dumps({**content, "checksum": digest}) + "\n"
