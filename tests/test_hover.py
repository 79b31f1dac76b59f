"""What a page's claims say on hovering."""

import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from study.claims import meanings

sys.path.append(str(ROOT / "book" / "_ext"))


@pytest.fixture(autouse=True)
def own_claims():
    """Of the study, whatever claims other tests made for themselves."""
    meanings.cache_clear()


def explained(body):
    import hover

    context = {"body": body}
    hover.explain_claims(SimpleNamespace(builder=SimpleNamespace(format="html")), "page", "page.html", context, None)
    return context["body"]


@pytest.mark.parametrize("name", ["S4", "S4-100", "S4-cifar100", "O7t-80", "W12g", "I4", "W3"])
def test_a_claim_among_words_says_what_it_claims(name):
    word = f'<abbr class="claim-id" tabindex="0" title="{meanings()[name].replace(chr(39), "&#39;")}">{name}</abbr>'
    assert explained(f"<p>As {name}. It holds ({name}).</p>") == f"<p>As {word}. It holds ({word}).</p>"
    assert explained(f"<th>{name}</th>") == f"<th>{word}</th>"


def test_a_claim_without_its_setting_names_none():
    assert "(digits, n = 100)" in meanings()["S4-100"]
    assert "digits" not in meanings()["S4"]


def test_a_link_with_a_claims_name_gets_a_title():
    assert explained('<a href="x.html">W3</a>') == f'<a href="x.html" title="{meanings()["W3"]}">W3</a>'


@pytest.mark.parametrize(
    "body",
    [
        "<p>S999, a7, xS4, S4x-3</p>",
        "<pre>S4</pre>",
        "<code>S4 <span>S4</span></code>",
        '<script>"S4"</script>',
        "<svg><text>S4</text></svg>",
        '<span class="math notranslate">\\(S4\\)</span>',
        '<a href="S4.html#S4">the claim S4</a>',
        '<abbr title="else">S4</abbr>',
    ],
)
def test_everything_else_stays(body):
    assert explained(body) == body
