"""A study's plan is older than its records, as the project's history says."""

import subprocess
from pathlib import Path

import pytest

from study import plans, published_records, tuning

ROOT = Path(__file__).parent.parent


def git(folder, *arguments):
    """What git says in a folder; nothing where it says no, or is not there."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    try:
        said = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return said.stdout.strip() if said.returncode == 0 else None


def not_after_the_plan(study, commits, folder):
    """Those of some commits that do not descend from the last change of a study's plan."""
    plan = git(folder, "log", "-1", "--format=%H", "--", f"results/{study}/plan.toml")
    return [
        commit for commit in commits if not plan or git(folder, "merge-base", "--is-ancestor", plan, commit) is None
    ]


def commits_of(study):
    """The commits at which a study's runs, and its trials where they say so, were made."""
    lines, trials = published_records.lines(study).values(), tuning.tuned_rows(study)
    found = [line.record.provenance["commit"] for line in lines] + [row["commit"] for row in trials if "commit" in row]
    return sorted(set(map(str, found)))


@pytest.mark.parametrize("study", plans.planned())
def test_a_plan_is_committed_before_the_first_run(study):
    if git(ROOT, "rev-parse", "--show-toplevel") != str(ROOT):
        pytest.skip("the project is no git repository here, so its history says nothing")
    if git(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the repository is shallow: it lacks the history")
    commits = commits_of(study)
    if not commits:
        pytest.skip(f"{study} has no published records yet")
    assert not_after_the_plan(study, commits, ROOT) == []


def test_a_plan_that_came_or_changed_after_a_run_is_found(tmp_path):
    """In a history of four commits: a file, the plan, another file, the plan changed."""
    plan = tmp_path / "results" / "tiny" / "plan.toml"
    plan.parent.mkdir(parents=True)
    git(tmp_path, "init")
    commits = []
    for file, text in ((tmp_path / "a", "1"), (plan, "1"), (tmp_path / "a", "2"), (plan, "2")):
        file.write_text(text)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-m", "a step")
        commits.append(git(tmp_path, "rev-parse", "HEAD"))
        if len(commits) == 3:
            assert not_after_the_plan("tiny", commits, tmp_path) == commits[:1]
    assert len(set(commits)) == 4
    assert not_after_the_plan("tiny", [*commits, "None", "f" * 40], tmp_path) == [*commits[:3], "None", "f" * 40]
    assert not_after_the_plan("other", commits, tmp_path) == commits
