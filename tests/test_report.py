"What the report notebook cannot say: an interrupted save leaves the older result whole."
import json

import pytest

from mrbook.evaluate import report


def study(values=(1., 2.)):
    s = report.Study("s", "paper, Table 1")
    s.add("A", "t", "PSNR", values)
    return s


def test_a_refused_save_leaves_the_older_result(tmp_path):
    path = study().save(tmp_path)
    before = path.read_bytes()
    broken = study((5., 6.)); broken.claim("untested", None)
    with pytest.raises(ValueError, match="needs a note"): broken.save(tmp_path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_write_leaves_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"; path.write_text("older")
    def stop(*a): raise KeyboardInterrupt
    monkeypatch.setattr(report.Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt): report.write_atomic(path, "newer")
    assert path.read_text() == "older" and [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("text, word", [("", "Expecting value"), ("[]", "must be an object"), ("{}", "no 'study'"), ("NaN", "must be an object")])
def test_a_file_that_is_no_study_is_named(tmp_path, text, word):
    path = tmp_path / "metrics.json"; path.write_text(text)
    with pytest.raises(ValueError, match=word) as e: report.load_metrics(path)
    assert str(path) in str(e.value)


def test_the_document_is_strict_json(tmp_path):
    text = study().save(tmp_path).read_text(encoding="utf-8")
    def refuse(constant): raise AssertionError(constant)
    assert json.loads(text, parse_constant=refuse)["rows"][0]["mean"] == 1.5
