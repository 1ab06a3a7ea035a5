"""The shipped catalog is what the lists make, its table is current, and loading it stays quick."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from shutil import copytree

import pytest

from pricing.book import CATALOG_DIR, load_book, read_versions
from pricing.importers.catalogs import LIST_SOURCES, catalog_of_book
from pricing.importers.diff import diff_catalogs, refuse_shrinkage
from pricing.importers.publish import DOCS, contents_of, disagreements_page, main, publish
from pricing.importers.sources import SOURCES, assemble, load_candidate, start_of
from pricing.manifest import BookBroken
from tests.pricing.cards import PUBLISHED, entry, rate
from tests.pricing.importers.test_catalogs import catalog_of

# The last version that was compiled by hand only.
BY_HAND = "2026-11-23.1"
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def _checked_at():
    return max(r.checked_at for r in PUBLISHED.rates if r.source.startswith(LIST_SOURCES))


@cache
def _candidates():
    return [load_candidate(name, checked_at=_checked_at()) for name in SOURCES]


def test_the_shipped_catalog_is_what_the_lists_make():
    """Nobody edited it on the way; `make catalog` says how it is built."""
    before = catalog_of_book(load_book(BY_HAND))
    built = assemble(before, _candidates(), checked_at=_checked_at())
    digests = {name: digest for name, (digest, _) in contents_of(built).items()}

    assert digests == PUBLISHED.version.manifest.providers
    refuse_shrinkage(before, built, start_of(_checked_at()))


def test_the_table_of_disagreements_is_current():
    """It is generated; run `make catalog` again when this fails."""
    before = catalog_of_book(load_book(BY_HAND))
    page = disagreements_page(before, _candidates(), start_of(_checked_at()))

    assert page == DOCS.read_text("utf-8")


def test_importing_both_lists_takes_less_than_ten_seconds():
    """Reading, checking, merging and comparing with what is in force, in processor time."""
    start = time.process_time()
    built = assemble(catalog_of_book(PUBLISHED), _candidates(), checked_at=_checked_at())
    diff_catalogs(catalog_of_book(PUBLISHED), built)

    assert time.process_time() - start < 10


@pytest.mark.parametrize("provider", ["anthropic", "openai", "openrouter"])
def test_loading_one_provider_takes_less_than_a_tenth_of_a_second(provider):
    """A gateway loads the providers it is configured for; the best of three, in processor time."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        load_book(providers=[provider])
        taken.append(time.process_time() - start)

    assert min(taken) < 0.1


def test_the_catalog_stays_small():
    """It is part of every installation."""
    size = sum(path.stat().st_size for path in CATALOG_DIR.rglob("*.json"))

    assert size < 4_000_000


def test_a_version_is_published_once(tmp_path):
    """The same content again changes nothing; another content needs another name."""
    folder = tmp_path / "catalog"
    copytree(CATALOG_DIR, folder)
    catalog = catalog_of(rate("input", 1), models=[entry()])
    words = {"version": "test.1", "recorded_at": NOW, "note": "for a test", "folder": folder}
    first = publish(catalog, **words)
    files = sorted(folder.rglob("*.json"))

    assert first == publish(catalog, **words) == read_versions(folder)[-1]
    assert files == sorted(folder.rglob("*.json"))
    assert Decimal(1) == load_book("test.1", folder).rates[0].amount
    with pytest.raises(BookBroken, match=r"test\.1 is published with another content"):
        publish(catalog_of(rate("input", 2), models=[entry()]), **words)


def test_the_command_of_developers_builds_a_version(tmp_path, capsys):
    """From the installed lists, in a folder of its own; a second build differs in nothing."""
    folder, docs = tmp_path / "catalog", tmp_path / "page.md"
    copytree(CATALOG_DIR, folder)
    words = ["--at", "2026-12-01T12:00:00+00:00", "--note", "n", "--catalog", str(folder)]
    code = main(["--version", "2026-12-01.1", *words, "--docs", str(docs)])
    said = capsys.readouterr().out

    assert 0 == code
    assert "2026-12-01.1: 4" in said
    assert "added" not in said
    assert docs.read_text("utf-8").startswith("# Where the price lists disagree")
    assert 1 == main(["--version", BY_HAND, *words, "--docs", str(docs)])
    assert "published with another content" in capsys.readouterr().err
