"""What the README shows in Python runs as it stands there, with fewer steps."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
LINKS = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def test_the_readmes_python_lines_run(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert "steps=220" in code
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(code.replace("steps=220", "steps=2"), found)
    assert found["picture"].shape == (512, 512, 3)
    assert (tmp_path / "corgi.glb").is_file()
    assert found["again"].path == found["corgi"].path
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if line[:2] in ("1 ", "2 ")] == ["1", "2"]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            f"{folder}/README.md"
            for folder in ("assets", "conf", "conf/experiment", "kernels", "splat_esd/export")
        ),
    ],
)
def test_every_link_of_the_readmes_leads_somewhere(page):
    path = README.parent / page
    for target in LINKS.findall(path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{page}: {target}"
