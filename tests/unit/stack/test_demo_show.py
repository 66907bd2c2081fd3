"""The picture of the demo's table."""

import xml.etree.ElementTree as ET
from pathlib import Path

from headrace_stack.demo.show import write_svg
from rich.console import Group
from rich.text import Text


def test_picture_is_a_drawing_that_asks_nobody_for_a_font(tmp_path: Path) -> None:
    file = tmp_path / "demo.svg"

    write_svg(Group(Text("user 4 is shown 2002")), file)

    drawn = ET.parse(file).getroot()  # noqa: S314  # written just now
    words = "".join(text for text in drawn.itertext()).replace("\xa0", " ")
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert "user 4 is shown 2002" in words
    assert "url(http" not in file.read_text(encoding="utf-8")
    assert "font-face" not in file.read_text(encoding="utf-8")
