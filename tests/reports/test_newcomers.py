"""What a newcomer, a re-runner and an attacker broke: each test says what was tried and what came of it."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from lsr_core import InputError, objective, sweep
from lsr_core.checkpoints import Checkpoint, unfinished
from lsr_core.data import download
from lsr_core.data.registry import source_of
from lsr_core.execute import execute
from lsr_core.files import cache_folder
from lsr_core.models import ImageNetwork
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.store import Store
from lsr_core.trainer import Trainer
from study import build, published_records, search, tuning
from study.cli import main
from study.results import collect
from study.tables import records_table

ROOT = Path(__file__).parents[2]
RUN = Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 0)


def ended(code, **options):
    """A Python process that runs this code, when it has ended."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, **options)


# 1. The metric `temperature` stood where the method's τ should; network, teacher and schedule were missing.
def test_the_csv_has_every_column_once_and_each_row_tells_its_run():
    teacher = replace(RUN, objective=objective("cross-entropy"), role="teacher")
    arms = [RUN, replace(RUN, schedule=Schedule(0.2, epochs=1))]
    arms += [
        replace(RUN, objective=objective("kd", temperature=tau), teacher=TrainedTeacher(replace(teacher, network=own)))
        for tau, own in ((2.0, RUN.network), (4.0, RUN.network), (4.0, replace(RUN.network, hidden=(8,))))
    ]
    table = records_table(collect(arms, [0, 1]))
    assert table.columns.is_unique
    described = table.loc[:, ~table.columns.str.startswith("metric.") & (table.columns != "key")]
    assert not described.astype(str).duplicated().any()
    assert table["objective.temperature"].dropna().tolist() == [2.0, 2.0, 4.0, 4.0, 4.0, 4.0]
    assert (table["metric.temperature"] > 0).all()


# 22. A diverged run had accuracy 0 in its record and in the CSV, chance level in the tables.
def test_a_diverged_run_counts_the_same_in_the_csv_as_in_every_table():
    wild = replace(RUN, schedule=Schedule(1e30, epochs=2))
    results = collect([wild], [0, 1])
    table = records_table(results)
    assert table["failure"].tolist() == ["diverged", "diverged"]
    assert table["metric.accuracy"].tolist() == results.values(wild, "accuracy").tolist() == [0.1, 0.1]


# 2. The state of a run on images that were gone stopped every other training in the store, and named no file.
def test_a_state_whose_images_are_gone_is_named_and_left_aside(image_file, tmp_path, own_store):
    path = tmp_path / "mine.npz"
    shutil.copy(image_file, path)
    own = Run(str(path), 30, RUN.objective, RUN.schedule, 0, network=ImageNetwork("plain_cnn", 2))
    trainer = Trainer([own])
    trainer.train_epoch()
    checkpoint = Checkpoint(own_store, [own])
    checkpoint.save(trainer.state_dict(), trainer.conditions())
    path.unlink()
    source_of.cache_clear()  # as in another process
    with pytest.warns(UserWarning, match=rf"{checkpoint.path} is left aside: there is no file {path}"):
        (record,) = execute([RUN])
    assert record.key == RUN.key
    assert checkpoint.path.exists()
    with pytest.warns(UserWarning, match="left aside"):
        assert unfinished(own_store) == []


# 5. The commit of another repository, in which the environment lay, stood in the records.
def test_no_other_repositorys_commit_stands_in_a_record(tmp_path):
    repository = tmp_path / "other"
    copied = repository / "env" / "lsr_core"
    shutil.copytree(ROOT / "lsr_core", copied)
    (repository / ".gitignore").write_text("env\n")
    for command in (["init"], ["add", "."], ["-c", "user.email=a@b.c", "-c", "user.name=a", "commit", "-m", "x"]):
        subprocess.run(["git", "-C", repository, *command], check=True, capture_output=True)
    code = "from lsr_core import provenance; print(provenance.__file__, provenance.provenance()['commit'])"
    assert ended(code, cwd=copied.parent).stdout.split() == [str(copied / "provenance.py"), "None"]


# 7. `LSR_STORE=./st` was another folder in the notebooks than on the command line, and ~ was taken literally.
def test_a_folder_is_expanded_and_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, folder in (("./st", tmp_path / "st"), ("~/st", tmp_path / "home" / "st"), (str(tmp_path), tmp_path)):
        monkeypatch.setenv("LSR_STORE", given)
        assert cache_folder("LSR_STORE", "records") == folder
        assert Store().folder == folder


# 12. Without HOME: a traceback, or records in /.cache.
def test_without_a_home_the_variable_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LSR_STORE")
    monkeypatch.setenv("HOME", "")
    with pytest.raises(InputError, match="there is no home folder; set LSR_STORE to a folder of yours"):
        cache_folder("LSR_STORE", "records")
    monkeypatch.setenv("LSR_STORE", str(tmp_path))
    assert cache_folder("LSR_STORE", "records") == tmp_path


# 19. A `scipy.py` in the current folder was executed by the helpers of `--workers 2`.
@pytest.mark.slow
def test_helpers_import_what_their_parent_does(tmp_path):
    (tmp_path / "scipy.py").write_text("open('executed', 'w')")
    code = (
        "from lsr_core import execute, objective\n"
        "from lsr_core.run import Run; from lsr_core.schedule import Schedule\n"
        "runs = [Run('digits', n, objective('lsr'), Schedule(0.1, epochs=1), 0) for n in (50, 60)]\n"
        "execute.execute(runs, workers=2)"
    )
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    assert not (tmp_path / "executed").exists()


def call(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


# 4. `lsr runs rm K K` removed the record, then failed.
def test_a_key_that_is_named_twice_is_removed_once(own_store):
    execute([RUN])
    removed = call("runs", "rm", RUN.key, RUN.key)
    assert (removed.exit_code, removed.stdout.split()[:2]) == (0, ["removed", "1"])
    assert own_store.keys() == []


# 7. The notebooks had another store than the command line where `LSR_STORE` was a relative path.
@pytest.mark.slow
def test_a_notebook_has_the_callers_store(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; print(os.environ['LSR_STORE'])")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "shown.ipynb")
    code = "from study.build import Path, execute; execute(Path('notebooks/shown.ipynb'), {}, Path('out'))"
    environment = {**os.environ, "LSR_STORE": "./st", "PYTHONPATH": str(ROOT)}
    (tmp_path / "out").mkdir()
    ended(code, cwd=tmp_path, env=environment, check=True)
    (cell,) = nbformat.read(tmp_path / "out" / "shown.ipynb", as_version=4).cells
    assert cell.outputs[0].text.strip() == str(tmp_path / "st")


# 10. One damaged record ended the list, and a record without an accuracy was a KeyError.
def test_a_list_of_runs_names_what_is_damaged_and_shows_the_others(own_store):
    others = [replace(RUN, seed=seed) for seed in (1, 2)]
    execute([RUN, *others])
    own_store.put(replace(own_store.get(others[1].key), metrics={}))
    (own_store.folder / RUN.key[:2] / f"{RUN.key}.json").write_text("{")
    listed = call("runs", "list")
    assert listed.exit_code == 2
    assert {line.split()[0] for line in listed.stdout.splitlines()} == {"record", "3", *(run.key for run in others)}
    assert "no value" in listed.stdout
    assert listed.stderr == f"lsr: 1 damaged records; `lsr runs rm {RUN.key}` removes such\n"


# 20. Six different runs looked alike in the list, which took 12 seconds.
def test_the_list_tells_runs_apart_and_opens_each_record_once(own_store, monkeypatch):
    first = replace(RUN, objective=objective("cross-entropy"), role="teacher")
    runs = [
        RUN,
        replace(RUN, schedule=Schedule(0.2, epochs=1)),
        replace(RUN, network=replace(RUN.network, hidden=(8,))),
    ]
    runs += [
        replace(RUN, objective=objective(method), teacher=TrainedTeacher(first, epoch=1))
        for method in ("kd", "kd-unscaled")
    ]
    execute(runs)
    listed = call("runs", "list").stdout
    lines = [line.split("  ", 1)[1] for line in listed.splitlines()[:-1]]
    assert len(set(lines)) == len(own_store.keys()) == len(runs) + 1
    monkeypatch.setattr(Store, "get", None)
    assert call("runs", "list").stdout == listed
    assert json.loads(call("runs", "list", "--json").stdout.splitlines()[0])["run"]["data"]["name"] == "digits"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["runs", "list"]], ids=" ".join)
def test_what_needs_no_torch_does_not_wait_for_it(arguments):
    code = f"import sys; from study.cli import main; main({arguments}, standalone_mode=False)"
    code += "; print('torch' in sys.modules)"
    assert ended(code, env={**os.environ, "PYTHONPATH": str(ROOT)}).stdout.splitlines()[-1] == "False"


# 11. `--out notebooks` wrote over the sources.
def test_notebooks_are_not_written_over_themselves(monkeypatch):
    monkeypatch.chdir(ROOT)
    refused = call("notebooks", "run", "mrkd", "--out", "./notebooks/")
    assert (refused.exit_code, "holds the notebooks themselves" in refused.stderr) == (2, True)


# 9 and 14. Edited values, hashes and commits passed as what they say; so did nothing at all.
@pytest.mark.parametrize(
    ("old", "new"),
    [('"train_nll": ', '"train_nll": 1'), ('"exact": "', '"exact": "0'), ('"commit": "', '"commit": "0')],
)
def test_a_line_that_was_changed_anywhere_is_named(old, new, tmp_path, monkeypatch):
    (tmp_path / "desktop").mkdir()
    for path in (published_records.FOLDER / "desktop").glob("*.jsonl"):
        shutil.copy(path, tmp_path / "desktop")
    path = tmp_path / "desktop" / "mrkd.jsonl"
    path.write_text(path.read_text().replace(old, new, 1))
    monkeypatch.setattr(published_records, "FOLDER", tmp_path)
    said = call("results", "verify", "desktop")
    assert (said.exit_code, "mrkd.jsonl, line 1 was changed" in said.stderr) == (2, True)


def test_nothing_to_verify_or_to_publish_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(published_records, "FOLDER", tmp_path)
    for arguments, message in (
        (["verify"], "there are no records in"),
        (["verify", "paper"], "paper has no published records"),
        (["publish", "paper"], "paper has no published records, and"),
    ):
        said = call("results", *arguments)
        assert (said.exit_code, message in said.stderr, said.stdout) == (2, True, ""), arguments
    assert list(tmp_path.iterdir()) == []


# 3 and 13. Most samples needed a private table, and a run of a stack was no run that came out as published.
def test_a_sample_is_drawn_from_what_can_be_made_here():
    possible = set(published_records.makeable("desktop"))
    lines = published_records.lines("desktop")
    assert {line.record.run["data"]["name"].partition("/")[0] for line in lines.values()} == {"cifar100", "gtzan"}
    assert {lines[key].record.run["data"]["name"] for key in possible} == {"cifar100"}
    again = published_records.Recomputation("key", "where", identical=False, alike=False, max_deviation=0.0)
    assert again.holds
    assert not replace(again, alike=True).holds
    assert "stack" in published_records.SAME


# 16. A server that accepted and never answered held the download for ever.
def test_a_server_that_never_answers_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/votes.npy"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        own = download.Download(lambda folder: {"votes": download.archive(address, folder)})
        with pytest.raises(InputError, match=r"timed out"):
            download.fetch("votes", tmp_path / "votes.npz", own)
    assert socket.getdefaulttimeout() is None


# 17. After everything had run, a status page that could not be written was a traceback, and nothing was shown.
def test_what_ran_is_shown_before_the_status_page_is_written(monkeypatch, tmp_path):
    done = build.Outcome("mrkd", "done", 1.0, "now")
    monkeypatch.setattr(build, "run", lambda *_: [done])
    status = tmp_path / "status.md"

    def full(*_):
        raise OSError(28, "No space left on device", str(status))

    monkeypatch.setattr(build, "status_page", full)
    said = call("notebooks", "run", "mrkd", "--status", status, "--out", tmp_path)
    assert (said.exit_code, said.stdout) == (2, f"{done}\n")
    assert said.stderr == f"lsr: {status} cannot be used (No space left on device)\n"


# 18. In a Latin-1 locale `lsr results verify` looked like tampering.
def test_a_latin_1_locale_changes_nothing():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    code = "from study.cli import main; main(['results', 'verify', 'reference'])"
    said = ended(code, env=environment)
    told = r"reference: \d+ runs are what they say(, \d are not made)?; 0 verdicts follow\n"
    assert re.fullmatch(told, said.stdout), said.stderr


# 21. p was a text in JSON, published studies were refused, and a blank line ruined a grid.
def test_claims_of_a_published_study_are_json_for_programs():
    said = call("claims", "--preset", "gtzan", "--json")
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert {row["preset"] for row in rows} == {"gtzan"}
    assert all(0 <= row["p"] <= 1 for row in rows)
    unknown = call("claims", "--preset", "nothing")
    assert (unknown.exit_code, "unknown preset 'nothing'" in unknown.stderr) == (2, True)


def test_a_blank_line_is_no_run_of_a_grid(tmp_path):
    sweep.write_grid([RUN], tmp_path / "grid")
    (tmp_path / "grid").write_text("\n" + (tmp_path / "grid").read_text() + "\n\n")
    assert sweep.read_grid(tmp_path / "grid") == [RUN]


# 15. `lsr tune` elsewhere chose another trial and did not say so.
def test_another_choice_than_the_published_is_said(monkeypatch):
    setting = tuning.settings_of("lsr", "quick")[0]
    rows = tuning.rows_of(setting, "lsr")
    worst = min(rows, key=lambda row: row["validation_accuracy"])
    monkeypatch.setattr(tuning, "settings_of", lambda *_: [setting])
    for found, said in (([worst], 1), (rows, 0)):
        monkeypatch.setattr(search, "tune", lambda *_, found=found, **__: found)
        assert call("tune", "lsr").stdout.count("the published choice is another one: ") == said
