"""Nonsense on the command line: one sentence and exit code 2, before anything runs."""

import json

import pytest
from click.testing import CliRunner

from lsr_core import InputError, objective, sweep
from lsr_core.checkpoints import RunLocks
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.store import Record, Store
from study import build, cli


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    def start(*_):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(build, "execute", start)


def refused(*arguments):
    """What the command says, which must be one sentence after click's two lines of usage, if they are there."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (2, "")
    said = [line for line in result.stderr.splitlines() if not line.startswith(("Usage:", "Try "))]
    assert len([line for line in said if line]) == 1, said
    return said[-1]


NOT_PLAIN = ["{1,2}", "1j", "b'2'", "...", "{}", "{1: 2}", "{[]: 1}", "{[]}", "[{}]", "[1, [2j]]", "-" * 50_000 + "1"]
NOT_LIKE = ["", "nan", "1e999", "None", "true", "[]", "[['a']]", "[1, 'a']", "[None]", "[true]", "(", "a\nb", "\udcff"]
LISTS = [("label_smoothing", "epsilons"), ("mrkd", "copies"), ("once_tuned", "deeper"), ("verdicts", "effects")]


# `-p seeds "{1,2}"` ended in "TypeError: Object of type set is not JSON serializable".
@pytest.mark.parametrize("text", NOT_PLAIN)
def test_what_no_parameter_can_be_is_refused(text):
    for name, parameter in (("label_smoothing", "seeds"), ("teacher_free", "alpha"), ("published", "study"), *LISTS):
        assert refused("notebooks", "run", name, "-p", parameter, text).startswith(f"lsr: {parameter} is ")


# `-p epsilons "{[]: 1}"` ended in a traceback; other values of another kind, in one from the middle of a notebook.
@pytest.mark.parametrize("text", NOT_LIKE)
def test_a_value_of_another_kind_than_the_default_is_refused(text):
    for name, parameter in (("label_smoothing", "seeds"), ("teacher_free", "alpha"), *LISTS):
        assert "takes what is like its default" in refused("notebooks", "run", name, "-p", parameter, text)


@pytest.mark.parametrize("text", ["1", "[1]", "null", "True", "[]"])
def test_a_number_is_no_text(text):
    assert "like its default" in refused("notebooks", "run", "published", "-p", "study", text)


def test_values_like_the_defaults_are_accepted():
    for name in build.names():
        given = {parameter: cli.literal(parameter, text) for parameter, text in build.parameters(name).items()}
        assert build.accepted([name], given) == {name: given}
    for seeds in (3, [0, 1], (4, 5)):
        assert build.accepted([], {"seeds": seeds})["mrkd"] == {"seeds": seeds}
    assert build.accepted(["tails_and_classes"], {"further_tails": [50]})


# `--time-limit nan` was no limit at all.
@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "0", "-1", "1e999", "soon", ""])
def test_a_time_limit_is_a_finite_number_above_0(seconds, tmp_path):
    assert "time-limit" in refused("notebooks", "run", "mrkd", "--time-limit", seconds, "--out", tmp_path)


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_a_budget_is_a_finite_number_above_0(seconds, tmp_path, capsys):
    sweep.write_grid([Run("digits", 50, objective("lsr"), Schedule(0.1), 0)], tmp_path / "grid")
    assert sweep.main([str(tmp_path / "grid"), "--budget-seconds", seconds]) == 2
    assert "budget-seconds is" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["5", "null", "[1]", "{}", '{"data": 1}', '"a"', "{", "\x00", '{"network": {}}'])
def test_a_grid_of_nonsense_is_one_sentence(line, tmp_path, capsys):
    (tmp_path / "grid").write_text(line)
    assert sweep.main([str(tmp_path / "grid"), "--budget-seconds", "9"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# `lsr models --shape "{[]:1}"` ended in "TypeError: unhashable type"; 3.0 channels, in torch.
@pytest.mark.parametrize("shape", ["{[]:1}", "", "3", "3,32", "3.0,32,32", "3,32,32,", "a,b,c", "-3,32,32", "3,9,9"])
def test_shapes_that_cannot_be_are_refused(shape):
    assert "takes (C, H, W) of square images" in refused("models", "--shape", shape)


FILES = ["/dev/null/file", "/proc/nowhere/file", "."]
NONSENSE = [
    *(("models", "--classes", text) for text in ("0", "-1", "2.5", "nan", "9" * 40)),
    *(("results", command, name) for command in ("publish", "verify", "recompute") for name in ("", "..", "x")),
    *(("results", "recompute", "desktop", "--sample", text) for text in ("0", "-1", "nan", "9" * 40)),
    *(("results", "recompute", "pilot_runs", "--seed", text) for text in ("-1", "1.5", "x")),
    *(("results", "grid", name, "grid") for name in ("", "..", "x")),
    *(("results", "grid", "pilot_runs", file) for file in FILES),
    *(("notebooks", "run", "mrkd", option, file) for option in ("--out", "--status") for file in FILES[:1]),
    *(("notebooks", "run", name) for name in ("", "..", "../mrkd", "mrkd.ipynb")),
    *(("data", command, name) for command in ("check", "fetch") for name in ("", "..", ".npz", "/.npz", "digits")),
    *(("data", "check", f"x.npz{part}") for part in ("/first-0", "/tail-0", "/first-1/x.npz", "/")),
    *(("runs", "show", prefix) for prefix in ("", "*", "..", "../", "zz", "0" * 99)),
    *(("tune", "lsr", *option) for option in (("--preset", ""), ("--workers", "0"), ("--workers", "two"))),
    *(("claims", option, text) for option in ("--preset", "--paper") for text in ("", "x", "paper")),
]  # fmt: skip


# A negative seed, an unknown folder, a file that cannot be written: tracebacks, some after an hour's work.
@pytest.mark.parametrize("arguments", NONSENSE, ids=" ".join)
def test_other_nonsense_is_one_sentence(arguments):
    refused(*arguments)


# `lsr runs rm ../victim` deleted a file outside the store.
@pytest.mark.parametrize(
    "key", ["../victim", "../../victim", "", "..", "a" * 19, "a" * 21, "A" * 20, "a" * 20 + "\n", "*"]
)
def test_only_a_key_names_a_record(key, tmp_path):
    store = Store(tmp_path / "records")
    store.check_writable()
    for victim in (tmp_path / "victim.json", tmp_path.parent / "victim.json", store.folder / ".json"):
        victim.write_text("{}")
    assert key not in store
    for use in (store.get, store.remove, store.matching, lambda k: store.weights_path(k, 1), RunLocks(store).lock):
        with pytest.raises(InputError):
            use(key)
    assert refused("runs", "rm", key).startswith("lsr: there is no record")
    assert (tmp_path / "victim.json").exists()
    assert (tmp_path.parent / "victim.json").exists()


def test_what_is_no_record_in_the_store_is_let_be(own_store):
    run = Run("digits", 50, objective("lsr"), Schedule(0.1), 0)
    own_store.put(Record(run.canonical(), {"accuracy": None}, {}, None, 0.1, {}))
    for other in ("no/notes.json", f"{run.key[:2]}/notes.json", f"zz/{run.key}.json"):
        (own_store.folder / other).parent.mkdir(exist_ok=True)
        (own_store.folder / other).write_text("mine")
    assert own_store.keys() == [run.key]
    listed = CliRunner().invoke(cli.main, ["runs", "list"])
    assert (listed.exit_code, "no value" in listed.stdout) == (0, True)
    assert json.loads(CliRunner().invoke(cli.main, ["runs", "list", "--json"]).stdout)["key"] == run.key
