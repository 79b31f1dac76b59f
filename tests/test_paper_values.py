import json
import re
from pathlib import Path

import pytest

from lsr_core import InputError
from study import paper_values, plans
from study.claims import CLAIMS

ROOT = Path(__file__).parent.parent
CONTENT = json.loads((ROOT / "study" / "paper_values.json").read_text())
OWN = "this study"
YUAN, SHEN, CHANDRASEGARAN = "yuan2020revisiting", "shen2021is", "chandrasegaran2022revisiting"


def numbers(text):
    return [float(number.replace("−", "-")) for number in re.findall(r"[+−]?(?:\d+\.\d+|\.\d+)", text)]


def study_claims(study):
    """The claims of a plan that a paper makes, also while their arms are not tuned."""
    families = plans.plan(study).content["families"]
    return [name for paper, family in families.items() if paper != OWN for name in family]


def test_every_claim_of_a_paper_has_its_quote_and_every_quote_its_claim():
    every = [claim for claims in CLAIMS.values() for claim in claims]
    planned = {name for study in plans.planned() for name in study_claims(study)}
    assert {claim.base for claim in every if claim.paper != OWN} | planned == paper_values.QUOTES.keys()
    assert all(paper_values.quote(claim.id) == paper_values.NOTHING for claim in every if claim.paper == OWN)


def test_a_quote_with_a_number_says_where_it_stands():
    for identifier, quote in paper_values.QUOTES.items():
        assert not numbers(quote) or re.search(r"\(.+\)$", quote), identifier


def test_every_source_is_in_the_bibliography():
    bibliography = (ROOT / "book" / "references.bib").read_text()
    for entry in (*CONTENT["quotes"], *CONTENT["tables"]):
        assert f"{{{entry['paper']}," in bibliography


def test_the_claims_themselves_print_no_paper():
    source = (ROOT / "study" / "claims.toml").read_text()
    assert not re.findall(r"\((?:Table|Fig\.) \d|\d\s?%[,\"]", source)


@pytest.mark.parametrize(
    ("claim", "place", "column"),
    [
        ("Y1", "Table 1", "Re-KD gain"),
        ("Y2", "Table 4", "De-KD gain"),
        ("Y6", "Table 5", "Tf-KD_self gain"),
        ("Y8", "Table 9", "Tf-KD_reg gain"),
    ],
)
def test_a_range_is_its_tables(claim, place, column):
    gains = paper_values.table(YUAN, place)[column]
    assert numbers(paper_values.quote(claim))[:2] == [gains.min(), gains.max()]


def test_the_other_quotes_are_their_tables_too():
    nine, five = (paper_values.table(YUAN, place).set_index("student") for place in ("Table 9", "Table 5"))
    over_lsr = (nine["Tf-KD_reg"] - nine["LSR"]).round(2)
    assert numbers(paper_values.quote("Y9")) == [over_lsr.min(), over_lsr.max()]
    assert numbers(paper_values.quote("Y7")) == list(five.loc["MobileNetV2", ["Tf-KD_self gain", "KD gain"]])
    assert numbers(paper_values.quote("Y10")) == list(nine.loc["MobileNetV2", ["Tf-KD_reg", "KD"]])
    assert numbers(paper_values.quote("Y12a")) == list(nine.loc["MobileNetV2", ["student alone", "Tf-KD_reg"]])
    erased = paper_values.table(SHEN, "Table 1").set_index("network")
    assert numbers(paper_values.quote("S1b")) == [erased["erased"].max(), erased["erased"].min()]
    assert numbers(paper_values.quote("S9")) == list(erased.loc[["ResNet-50", "ResNet-50, long"], "1 − S without LSR"])
    students = paper_values.table(SHEN, "Table 2")
    assert numbers(paper_values.quote("S4")) == list((students["with LSR"] - students["without LSR"]).round(2))
    taught = paper_values.table(CHANDRASEGARAN, "README").query("student == 'ResNet-18'").set_index("T")
    effect = (taught["smoothed teacher"] - taught["plain teacher"]).round(1)
    assert numbers(paper_values.quote("C1")) == [effect[1], effect[3]]
    assert numbers(paper_values.quote("C2")) == pytest.approx(list(taught.loc[[1, 3], "smoothed teacher"]), abs=0.06)


def test_the_slips_in_the_printed_gains_are_the_papers_own():
    """Each gain against its two accuracies: what does not follow has been found in the paper, not made in copying."""
    slips = set()
    for entry in CONTENT["tables"]:
        table = paper_values.table(entry["paper"], entry["place"])
        for column in (name.removesuffix(" gain") for name in table if name.endswith(" gain") and name != "KD gain"):
            base = "teacher alone" if column == "Re-KD" else "student alone"
            wrong = (table[column] - table[base] - table[f"{column} gain"]).abs() > 0.006
            slips |= {(entry["place"], row["student"], column) for _, row in table[wrong].iterrows()}
        if "KD" in table:
            wrong = (table["KD"] - table["student alone"] - table["KD gain"]).abs() > 0.006
            slips |= {(entry["place"], row["student"], "KD") for _, row in table[wrong].iterrows()}
        if "erased" in table:
            wrong = (table["1 − S with LSR"] - table["1 − S without LSR"] - table["erased"]).abs() > 0.00006
            slips |= {(entry["place"], row["network"], "erased") for _, row in table[wrong].iterrows()}
    assert slips == {
        ("Table 2", "plain CNN", "Re-KD"),
        ("Table 4", "MobileNetV2", "De-KD"),
        ("Table 4", "ResNet-18", "De-KD"),
        ("Table 9", "GoogLeNet", "KD"),
        ("Table 10", "DenseNet-121", "Tf-KD_reg"),
        ("Table 10", "DenseNet-121", "KD"),
        ("Table 10", "ShuffleNetV2", "LSR"),
        ("Table 11", "ResNet-50", "LSR"),
    }


def test_a_table_that_is_not_there_is_refused():
    with pytest.raises(
        InputError, match=r"no printed table 'Table 7' of 'shen2021is'; there are yuan2020revisiting, T"
    ):
        paper_values.table(SHEN, "Table 7")
    assert paper_values.quote("O3-100") == paper_values.quote("nonsense") == paper_values.NOTHING
