"""Every command that the README and the pages on rerunning and records promise, as a reader types it.

Each runs in a shell of an ordinary user, in folders with spaces and accents: in one that has nothing to do with the
project, of a package that is no editable install, or in a clone that was installed by the README's own commands. A
command that would take longer than all others is parsed only, and stands in `DEAR`.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lsr_core import InputError
from study import plans

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "book/rerun.md", "book/records.md")}
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )?(?:git|jupyter-book|lsr|make|papermill|pip|pytest|python3?) [^`\n]+)`")
SCRIPTS = sysconfig.get_path("scripts")
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What a reader fills in.
NAMES = {"KEY": "$(lsr runs list | head -1 | cut -c1-20)", "NAME": "own.npz", "FOLDER": '"$LSR_STORE"', "METHOD": "lsr"}

# Without a clone, in this order: each command, its exit code, and what it says.
ANYWHERE = {
    "lsr runs": (2, r"Usage: lsr runs"),
    "lsr data": (2, r"Usage: lsr data"),
    "lsr runs list": (0, r"\d+ records in .*/records"),
    "lsr runs list --json": (0, r'"failure": null'),
    "lsr runs show 0a1b2c": (2, r"no record's key begins with '0a1b2c'"),
    "lsr runs rm KEY": (0, r"removed 1 of the records"),
    "lsr data list": (0, r"cifar100 +45000 to train on"),
    "lsr data fetch NAME": (0, r"own\.npz: "),
    "lsr data check NAME": (0, r"own\.npz has fingerprint \w+"),
    "lsr data fetch gtzan": (2, r"put its table at .*/gtzan\.npz"),
    "lsr models": (0, r"resnet18 +11,220,132 parameters"),
    "python -m lsr_core.sweep grid.jsonl --budget-seconds 3600": (0, r"all runs are made"),
    "python -m study.paper grid.jsonl --budget-seconds 3600": (0, r"all runs are made"),
}
# In a clone: what trains, and what does not, beside it.
CHAPTER = {
    "papermill notebooks/label_smoothing.ipynb out.ipynb -p seeds 10": (0, r"Executing"),
    "lsr results import FOLDER": (0, r""),
}
IN_CLONE = {
    "make help": (0, r"make|book +execute every notebook"),
    "lsr notebooks list": (0, r"label_smoothing: seeds = "),
    "lsr results verify": (0, r"desktop: \d+ runs are what they say"),
    "lsr results grid desktop grid.jsonl": (0, r"grid\.jsonl: \d+ runs"),
    "lsr results publish desktop": (0, r"desktop/mrkd\.jsonl: \d+ runs"),
    "python -m lsr_core.sweep --preset gpu --budget-seconds 780": (2, r"'gpu' is made on a GPU"),
    "PYTHONPATH=. python benchmarks/gpu.py --budget-seconds 780": (2, r"GPU"),
}
# What installs without a clone, and in one.
COPY = "pip install ."
ACTIVATE = ". .venv/bin/activate"
INSTALL = ("python3 -m venv .venv && . .venv/bin/activate", 'pip install -c constraints.txt -e ".[book,test]"')

# Too dear to run: only what shows that the command is understood is run, and ends with 0.
MADE = ["env", "book", "slides", "pdf", "dist", "bench", "figure", "coverage"]  # downloads, the whole book, benchmarks
MADE += ["test", "test-all", "test-endurance", "test-machines"]
MADE_SO = ["TORCH_INDEX=https://download.pytorch.org/whl/cpu make book", "PYTHON=python3.12 make book"]
TRAINED = [
    "lsr notebooks run label_smoothing lsrkd -p seeds 10",  # two chapters
    "lsr claims",  # every run of the preset `quick`
    "lsr results recompute --sample 3",  # CIFAR-100, and three runs of minutes
    "lsr results recompute desktop --sample 3",
    "lsr results make one-layer",  # a preset
    "lsr results make one-layer --ray",
    "lsr tune METHOD --workers 2",  # hundreds of trials
]
EPSILONS = [  # sixty seeds
    'papermill notebooks/label_smoothing.ipynb out.ipynb -y "epsilons: [0.6, 0.8]"',
    'lsr notebooks run label_smoothing -p epsilons "[0.6, 0.8]"',
]
ALL_PAGES = "lsr notebooks run --out book --status book/status.md && jupyter-book build book"
CLONING = "git clone <this project> && cd <its folder>"  # the address is the reader's
DEAR = {command: command.replace("make ", "make -n ") for command in (*(f"make {name}" for name in MADE), *MADE_SO)}
DEAR |= {command: f"{command} --help" for command in TRAINED}
DEAR |= {EPSILONS[0]: f"{EPSILONS[0]} --prepare-only", EPSILONS[1]: f"{EPSILONS[1]} --time-limit 1 || test $? = 1"}
DEAR |= {ALL_PAGES: ALL_PAGES.replace(" &&", " --help &&") + " --help"}
DEAR |= {CLONING: "git clone -h || test $? = 129", "pytest": "pytest --version"}
WITHOUT_CLONE = {*ANYWHERE, CLONING}


def promised(text):
    """The commands of a page: each line of a block for the shell, without its remark, and those within sentences."""
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return {*(re.sub(r"\s+#.*", "", line) for line in lines), *INLINE.findall(BLOCK.sub("", text))}


def test_every_promised_command_is_tried():
    on_pages = set().union(*map(promised, PAGES.values()))
    assert on_pages == {*ANYWHERE, *CHAPTER, *IN_CLONE, COPY, *INSTALL, ACTIVATE, *DEAR}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_which_commands_need_a_clone(name):
    assert "clone" in PAGES[name]  # to make something, on any page
    for section in re.split("^## ", PAGES[name], flags=re.MULTILINE):
        others = {command for command in promised(section) - WITHOUT_CLONE if "make " not in command}
        assert not others or "clone" in section, others


@pytest.fixture
def reader(tmp_path):
    """The folder of a reader, with the tracked files in `clone` and in `sources`, and a place to work in."""
    if not ((ROOT / ".git").exists() and shutil.which("git") and shutil.which("make")):
        pytest.skip("this is no clone, or there is no git or make on this machine")
    folder = tmp_path / "Übung à côté"
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        (folder / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "clone" / name)
    shutil.copytree(folder / "clone", folder / "sources")  # pip leaves files there
    (folder / "work").mkdir()
    return folder


def ordinary():
    """What drops the superuser's privileges, where these tests have them."""
    can = os.getuid() == 0 and shutil.which("setpriv")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if can else []


def shell(reader, folder, line, store="records"):
    """What a line does in a reader's folder, where no index of packages can be reached."""
    others = [entry for entry in os.environ["PATH"].split(os.pathsep) if entry != SCRIPTS]
    own = {
        "PATH": os.pathsep.join([str(Path(sys._base_executable).parent), *others]),
        "HOME": str(reader),
        "LSR_STORE": str(reader / store),
    }
    own |= {"LSR_DATA": str(reader / "data"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    own |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "LC_ALL": "C.UTF-8"}
    command = [*ordinary(), "bash", "-c", line]
    return subprocess.run(
        command, cwd=reader / folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def share(environment):
    """Let an environment have the packages of this one, and their commands, as if it had installed them."""
    (folder,) = environment.glob("lib/python*/site-packages")
    for old in folder.glob("setuptools*"):  # of Python 3.11's own, too old to build this package
        shutil.rmtree(old)
    (folder / "shared.pth").write_text(sysconfig.get_path("purelib"))
    for name in ("jupyter-book", "papermill", "pip", "pytest"):
        command = environment / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "$(dirname "$0")/python" "{SCRIPTS}/{name}" "$@"\n')
        command.chmod(0o755)


def faults(run, expected):
    """What commands did that they should not have done, in their order."""
    found = []
    for command, (code, said) in expected.items():
        done = run(re.sub("|".join(NAMES), lambda name: NAMES[name[0]], command))
        if done.returncode != code or not re.search(said, done.stdout):
            found.append((command, done.returncode, done.stdout[-1500:]))
    return found


def without_clone(reader):
    """Install a copy, run the pages' examples in Python, which leave runs and a grid, and then every command."""
    shell(reader, "work", "python3 -m venv --without-pip ../env")
    share(reader / "env")
    active = '. "../env/bin/activate"\n'
    code = "\n".join(EXAMPLE.findall(PAGES["book/records.md"]))
    (reader / "work" / "examples.py").write_text(code, encoding="utf-8")
    start = {"cd ../sources && pip install . && cd ../work && python examples.py": (0, r"\[0\.\d+")}
    return faults(
        lambda command: shell(reader, "work", active + command),
        {**start, **ANYWHERE, "lsr notebooks list": (2, r"this needs a clone")},
    )


def in_clone(reader, expected):
    """Run commands in the clone."""
    return faults(lambda command: shell(reader, "clone", f"{ACTIVATE}\n{command}", "others"), expected)


def test_the_reader_is_an_ordinary_user(tmp_path):
    if os.getuid() == 0 and not ordinary():
        pytest.skip("these tests have the superuser's privileges, and there is no setpriv that drops them")
    said = shell(tmp_path, ".", "grep CapEff /proc/self/status || echo CapEff: 0").stdout  # none but Linux has these
    assert int(said.split()[-1], 16) == 0, said


@pytest.mark.slow
def test_every_promised_command_does_what_the_page_says(reader):
    results = {path: path.read_bytes() for path in (reader / "clone" / "results").rglob("*.jsonl")}
    with ThreadPoolExecutor() as pool:
        lanes = [pool.submit(without_clone, reader)]
        shell(reader, "clone", INSTALL[0])
        share(reader / "clone" / ".venv")
        assert in_clone(reader, {INSTALL[1]: (0, "")}) == []
        understood = dict.fromkeys(DEAR.values(), (0, ""))
        lanes += [pool.submit(in_clone, reader, some) for some in (CHAPTER, IN_CLONE | understood)]
    assert [fault for lane in lanes for fault in lane.result()] == []
    assert [path.name for path, content in results.items() if path.read_bytes() != content] == []


def test_what_reads_the_results_asks_for_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(plans, "FOLDER", tmp_path / "results")
    with pytest.raises(InputError, match="this needs a clone"):
        plans.planned()
