"""Sentences: pieces, labels without padding, and what is refused."""

import gzip
import sys
import tempfile

import pytest
import torch
from made_language import NAME, made_pairs, write

from lsr_core import InputError
from lsr_core.data import Translation, dataset, translation
from lsr_core.data.sentences import BEGIN, END, PAD, with_targets


def test_labels_are_the_pieces_wanted_and_padding_is_none(sentences):
    split = sentences.split(100, 0)
    assert split.train_inputs.shape == (100, 3, 32)
    source, given, wanted = split.train_inputs.unbind(1)
    assert torch.equal(split.train_labels, wanted[wanted != PAD])
    assert (given[:, 0] == BEGIN).all()
    assert ((wanted == END).sum(-1) == 1).all()
    assert ((source == END).sum(-1) == 1).all()
    inside = given[:, 1:] != PAD
    assert torch.equal(given[:, 1:][inside], wanted[:, :-1][inside])
    assert (inside.sum(-1) + 1 == (wanted != PAD).sum(-1)).all()


def test_a_seed_draws_its_sentences_and_no_other_part_has_them(sentences):
    first, again, other = (sentences.split(50, seed) for seed in (0, 0, 1))
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert not torch.equal(first.train_inputs, other.train_inputs)
    assert torch.equal(first.test_inputs, other.test_inputs)
    longer = sentences.split(100, 0)
    assert torch.equal(longer.train_inputs[:50], first.train_inputs)
    assert torch.equal(longer.validation_inputs, first.validation_inputs)


def test_pieces_are_read_as_the_sentence_they_were(sentences):
    examples, _, _ = sentences.test
    assert [sentences.text(row) for row in examples[:, 2].tolist()] == sentences.references


def test_long_sentences_are_in_the_whole_set_alone(sentences):
    write([*made_pairs(), ("der hund " * 5, "the dog " * 5)])
    translation.lines.cache_clear()
    assert len(Translation(NAME, 0, "", 60).pairs(["train"])) == 150
    assert len(Translation("multi30k-de-en", 0, "", 60).pairs(["train"])) == 151
    assert sentences.length < Translation("multi30k-de-en", 0, "").length


def test_other_translations_are_given_and_wanted_in_the_same_way():
    examples = torch.tensor([[[5, END, PAD, PAD], [BEGIN, 6, PAD, PAD], [6, END, PAD, PAD]]]).repeat(3, 1, 1)
    found = torch.tensor([[7, 8, END], [9, END, PAD], [7, 8, 9]])
    assert with_targets(examples, found)[:, 1:].tolist() == [
        [[BEGIN, 7, 8, PAD], [7, 8, END, PAD]],
        [[BEGIN, 9, PAD, PAD], [9, END, PAD, PAD]],
        [[BEGIN, 7, 8, 9], [7, 8, 9, END]],
    ]
    assert torch.equal(with_targets(examples, examples[:, 2]), examples)


def test_an_unknown_pair_of_languages_is_refused():
    with pytest.raises(InputError, match="unknown pair of languages 'multi30k-de-nl'; there are multi30k-de-en, "):
        dataset("multi30k-de-nl")


def test_sentences_have_no_classes_to_choose():
    with pytest.raises(InputError, match=f"'{NAME}/first-5' cannot be: its classes are pieces of words"):
        dataset(f"{NAME}/first-5")


@pytest.mark.usefixtures("sentences")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("val.en", "", r"val\.en has no sentence in line 1; take the whole file"),
        ("train.de", "der hund .\n\n", r"train\.de has no sentence in line 2"),
        ("val.de", "der hund .\n", r"val has 1 lines in de and \d+ in en; a line is the other's translation"),
        ("train.en", "the dog .\n" * 150, r"has \d+ sentences with fingerprint \w+; the study was made with \d+ and"),
    ],
)
def test_an_empty_an_unequal_and_another_file_are_refused(name, text, message):
    source = Translation(NAME, 150 + 12, "0" * 16, 40)
    (source.folder / name).write_text(text, encoding="utf-8")
    translation.lines.cache_clear()
    with pytest.raises(InputError, match=message) as caught:
        source.fetch()
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("sentences")
def test_too_many_pieces_and_too_long_sentences_are_refused():
    with pytest.raises(InputError, match=r"10000 pieces cannot be learnt from 300 lines .*; take fewer"):
        Translation(NAME, 0, "", 10_000).fetch()
    source = Translation(NAME, 0, "", 60)
    object.__setattr__(source, "length", 5)
    with pytest.raises(InputError, match=r"has a sentence of \d+ pieces with its end: 'der .*'; its length is 5"):
        source.fetch()


@pytest.mark.usefixtures("sentences")
def test_a_file_that_is_no_text_is_refused():
    source = Translation(NAME, 0, "", 60)
    path = source.folder / "val.de"
    path.write_bytes(b"\xff\xfe\x00")
    translation.lines.cache_clear()
    with pytest.raises(InputError, match=r"val\.de cannot be read as text \(.*\); take the whole file"):
        source.fetch()


def test_an_archive_in_the_folder_is_used_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(translation, "URL", (tmp_path / "nowhere").as_uri())
    folder = Translation(NAME, 0, "").folder
    folder.mkdir(parents=True)
    (tmp_path / "val.en.gz").write_bytes(gzip.compress(b"from elsewhere\n"))
    with pytest.raises(InputError, match=r"or put val\.en\.gz into"):
        translation.lines(folder, "en", "val")
    (folder / "val.en.gz").write_bytes(gzip.compress(b"a dog .\n"))
    assert translation.lines(folder, "en", "val") == ["a dog ."]
    (folder / "val.de.gz").write_bytes(gzip.compress(b"ein hund ." * 9)[:-12])
    with pytest.raises(InputError, match=r"val\.de could not be fetched"):
        translation.lines(folder, "de", "val")


def test_without_the_extra_one_sentence_says_how_to_get_it(sentences, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(InputError, match=r"sentencepiece, .*, is not installed; pip install 'lsr-core\[translation\]'"):
        Translation(NAME, 0, "", 60).fetch()
    assert sentences.max_train == len(made_pairs()) + 12 - 30


def test_missing_files_are_downloaded_or_named(monkeypatch, tmp_path):
    source = Translation(NAME, 0, "")
    with pytest.raises(InputError, match=rf"lacks train\.de; `lsr data fetch {NAME}` downloads it"):
        source.check()
    monkeypatch.setattr(translation, "URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(
        InputError, match=r"multi30k's train\.de could not be fetched: .*; try again, or put train\.de\.gz into"
    ):
        source.fetch()
