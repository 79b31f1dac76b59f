"""Execute one notebook: what `notebooks` starts in a process of its own.

A script rather than a module, so that it does not import the package (and torch) only to start a kernel that does.
Usage: _execute.py NOTEBOOK FOLDER PARAMETERS_AS_JSON. Exit code 2 and one sentence for bad input, 1 and the cell with
its traceback for any other failure. On SIGTERM, and when standard input closes, it ends with its kernel. However it
ends, the notebook is kept as far as it ran.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

sys.path.append(str(Path(__file__).parents[1] / "lsr_core"))
from _parent import end_with_parent


def execute(source: Path, out: Path, given: Mapping[str, Any]) -> int:
    """Execute the notebook into the folder and keep it without its timings."""
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / source.name
        try:
            papermill.execute_notebook(
                str(source), str(executed), dict(given), progress_bar=False, cwd=str(source.parent)
            )
        except PapermillExecutionError as error:
            (out / source.name).write_bytes(executed.read_bytes())
            if error.ename == "InputError":
                print(error.evalue)
                return 2
            print(f"cell {error.cell_index}:\n{error.source}\n\n" + "\n".join(error.traceback))
            return 1
        except (DeadKernelError, KeyboardInterrupt) as error:
            (out / source.name).write_bytes(executed.read_bytes())
            begun = [
                (number, cell.source)
                for number, cell in enumerate(nbformat.read(executed, as_version=4).cells)
                if cell.metadata.papermill.start_time
            ]
            died = "its kernel died in " if isinstance(error, DeadKernelError) else "ended in "
            print("{}cell {}:\n{}".format(died, *begun[-1]) if begun else f"{died}its beginning")
            return 1
        notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for timing in ("papermill", "execution"):
            cell.metadata.pop(timing, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill's own is drawn at random
    kept, content = out / source.name, nbformat.writes(notebook)
    if not kept.exists() or kept.read_text() != content:  # an unchanged file keeps its time, and the book its page
        kept.write_text(content)
    return 0


def _end(*_: object) -> NoReturn:
    """Stop at a signal, and let no second one disturb the end of the kernel."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    end_with_parent()
    sys.exit(execute(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
