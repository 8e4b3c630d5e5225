"""The table of faults is what the tests say, and no row of it stands there unproved."""

import pytest
from support import fault_table


def test_the_page_is_the_one_that_is_generated():
    page = fault_table.TESTS.parent / "docs" / "faults.md"
    assert page.read_text() == fault_table.table(), (
        "run python tests/support/fault_table.py > docs/faults.md"
    )


def test_every_row_has_tests_that_run_by_default():
    found = [
        proof for file in fault_table.TESTS.rglob("test_*.py") for proof in fault_table.proofs(file)
    ]
    default = [proof for proof in found if not proof.test.endswith(("(slow)", "(process)"))]
    assert {proof.row for proof in default} == fault_table.ROWS.keys()


@pytest.mark.parametrize(
    "source",
    [
        '@pytest.mark.fault("weather: rain", "wet")\ndef test_it(): pass',
        '@pytest.mark.fault("kill", "dead")\ndef test_it(): pass',
        '@pytest.mark.fault("kill: it")\ndef test_it(): pass',
        '@pytest.mark.fault("kill: it", "dead")\ndef helper(): pass',
    ],
)
def test_a_mark_of_another_form_is_refused(tmp_path, source):
    (tmp_path / "test_x.py").write_text(source)
    with pytest.raises(ValueError):
        fault_table.proofs(tmp_path / "test_x.py")
