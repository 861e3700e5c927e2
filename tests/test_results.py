import pandas as pd
import pytest

from tlcourse import results


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TLCOURSE_RESULTS", str(tmp_path))
    return tmp_path


def test_a_table_comes_back_with_what_made_it(folder):
    table = pd.DataFrame({"method": ["pixels", "deep"], "auc": [0.8123456, 0.9]})
    path = results.save_table(table, "curve", command="make results", note="5 seeds")
    again = results.load_table("curve")
    assert again["auc"].tolist() == [0.81235, 0.9]
    assert again.attrs["note"] == "5 seeds"
    assert again.attrs["command"] == "make results"
    assert "torch" in again.attrs["versions"]
    assert "cores" in again.attrs["machine"]
    assert again.attrs["commit"]
    assert [p.name for p in folder.iterdir()] == [path.name]


def test_an_absent_table_names_those_there_are():
    results.save_table(pd.DataFrame({"a": [1]}), "there", command="c", note="n")
    with pytest.raises(results.ResultUnavailable, match=r"'absent'.*\['there'\]"):
        results.load_table("absent")


def test_outside_a_checkout_the_error_says_what_to_do(monkeypatch):
    monkeypatch.delenv("TLCOURSE_RESULTS")
    monkeypatch.setattr(results, "repository_root", lambda: None)
    with pytest.raises(results.ResultUnavailable, match="TLCOURSE_RESULTS"):
        results.results_dir()
