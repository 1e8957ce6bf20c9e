import pytest
from test_page import told
from test_ply import some

from splat_esd.cli import main as cli
from splat_esd.formats.ply import write_ply


def test_files_and_runs_stand_side_by_side_on_one_page(tmp_path, capsys):
    write_ply(some(), tmp_path / "run" / "splat.ply")
    other = write_ply(some(degree=1), tmp_path / "b, other.ply")
    page = tmp_path / "pages" / "ab.html"
    assert cli.main(["compare", str(tmp_path / "run"), str(other), f"out={page}"]) == 0
    assert "ab.html" in capsys.readouterr().out
    assert [result["title"] for result in told(page)["results"]] == ["splat.ply", "b, other.ply"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare takes 2 to 12 run folders or splat files, got 0"),
        (["a.ply"], "got 1; see splat-esd compare --help"),
        (["a.ply"] * 13, "got 13"),
        (["no.ply", "such.ply"], "there is no file or folder no.ply."),
        (["a.ply", "b.ply", "out=."], "out: . is a folder; name the page"),
    ],
)
def test_a_mistake_is_named_and_nothing_written(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
