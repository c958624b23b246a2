"The csv of pairs as users write it: whole heads, spreadsheets, other people's lesion maps."
import numpy as np, pytest
from mrbook.cohorts.tables import PairsError, make_pair, pair_cohort, read_pairs
from mrbook.mri.phantom import image, phantom
from mrbook.mri.physics import Contrast
from mrbook.cohorts.missing_contrast import Pair, task_slices, task_subject
from mrbook.scans.volume import Volume, VolumeError, write_volume

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Two subjects at 4 mm with head and air, one of them with a lesion map; stored as LPS."
    root = tmp_path_factory.mktemp("pairs")
    for i in range(2):
        a = phantom(5000 + i, 4., lesions=12, head=True)
        for name, w in (("t1", "t1w"), ("flair", "flair")):
            v = Volume(image(a, Contrast(w, 3.), noise=0.02, seed=i)[::-1, ::-1] * 500, a.affine @ np.array([[-1, 0, 0, a.shape[0] - 1], [0, -1, 0, a.shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1.]]))
            write_volume(v, root / f"{i}_{name}.nii.gz")
        write_volume(Volume(a.lesions, a.affine), root / f"{i}_wmh.nii")
    return root

def table(folder, text, name="pairs.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding)); return folder / name

def test_whole_heads_from_a_spreadsheet(folder):
    "A byte-order mark, semicolons, CRLF, capitals in the header and a blank line."
    path = table(folder, "Subject;Source;Target;Lesion;Split\r\np0;0_t1.nii.gz;0_flair.nii.gz;0_wmh.nii;Training\r\n;;;;\r\np1;1_t1.nii.gz;1_flair.nii.gz;;test\r\n", encoding="utf-8-sig")
    rows = read_pairs(path, measure=False)
    assert [(r.subject, r.split, r.line) for r in rows] == [("p0", "train", 2), ("p1", "test", 4)]
    first, second = pair_cohort(rows, 4.)
    a = phantom(5000, 4., lesions=12, head=True)
    assert first.lesions.sum() == a.lesions.sum() and second.lesions is None
    assert first.target.data[first.lesions].mean() > 1.3 * first.target.data[first.brain].mean()
    assert first.brain.sum() > 1.2 * a.brain.sum(), "the foreground of an unstripped scan is the head"
    assert 0 <= first.source.data.min() and first.source.data.max() <= 1 and (first.source.data[~first.brain] == 0).all()

def test_lesion_map_elsewhere(folder):
    "A lesion map whose affine puts it outside the head is refused."
    a = phantom(5000, 4., lesions=12)
    affine = a.affine.copy(); affine[:3, 3] += 150
    write_volume(Volume(a.lesions, affine), folder / "away.nii")
    path = table(folder, "subject,source,target,lesion\np0,0_t1.nii.gz,0_flair.nii.gz,away.nii\n")
    with pytest.raises(PairsError, match="line 2: 0% of the lesion map"): read_pairs(path, measure=False)

def test_stripped_source_and_whole_target(folder):
    "A brain against a head overlaps, yet is no pair to train on without knowing: the Dice is lower than that of true pairs."
    from mrbook.cohorts.tables import registration
    p = task_subject("flair", 5000, spacing=4.)
    from mrbook.scans.volume import read_volume
    whole = read_volume(folder / "0_flair.nii.gz")
    assert registration(p.source, whole, measure=False)[1] < registration(p.source, p.target, measure=False)[1] - 0.1

@pytest.mark.parametrize("text, match", [
    ("", "is empty"), ("subject,source\np0,a\n", "column 'target' is missing"), ("subject,source,target,lesions\np,a,b,c\n", "did you mean 'lesion'"),
    ("subject,source,target,source\np,a,b,c\n", "comes twice"), ("subject,source,target,split\np,0_t1.nii.gz,0_flair.nii.gz,holdout\n", "choose train, val or test")])
def test_bad_tables(folder, text, match):
    with pytest.raises(VolumeError, match=match): read_pairs(table(folder, text))

def test_a_spreadsheet_is_no_csv(folder):
    (folder / "pairs.xlsx").write_bytes(b"PK\x03\x04\xff\xfe\x00\x9c")
    with pytest.raises(VolumeError, match="not as a spreadsheet"): read_pairs(folder / "pairs.xlsx")

def test_one_empty_map_for_all(folder):
    "Healthy subjects may share an all-zero lesion map, in different splits too."
    a = phantom(5000, 4., lesions=12, head=True)
    write_volume(Volume(np.zeros(a.shape), a.affine), folder / "none.nii")
    rows = read_pairs(table(folder, "subject,source,target,lesion,split\np0,0_t1.nii.gz,0_flair.nii.gz,none.nii,train\np1,1_t1.nii.gz,1_flair.nii.gz,none.nii,test\n"), measure=False)
    assert all(p.lesions is not None and not p.lesions.any() for p in pair_cohort(rows, 4.))

def test_registration_is_told(folder):
    "A shift of 12 mm leaves the Dice high; the measurement tells."
    a = phantom(5000, 4., lesions=12, head=True)
    affine = a.affine.copy(); affine[0, 3] += 12
    write_volume(Volume(image(a, Contrast("flair", 3.), noise=0.02), affine), folder / "off.nii")
    with pytest.warns(UserWarning, match="mm apart"): read_pairs(table(folder, "subject,source,target\np0,0_t1.nii.gz,off.nii\n"))

def test_pair_refuses_two_grids():
    v = Volume(np.ones((8, 8, 8)), np.eye(4))
    with pytest.raises(ValueError, match="bring all to one grid"): Pair("x", v, v, np.ones((8, 8, 9), bool))

def test_slices_refuse_a_cut_brain(folder):
    p = make_pair(*(Volume(image(phantom(5000, 4., head=True), Contrast(w, 3.)), phantom(5000, 4.).affine) for w in ("t1w", "flair")), spacing=4.)
    with pytest.raises(ValueError, match="larger size or a larger spacing"): task_slices([p], size=(32, 32))

BASE = "subject,source,target\np0,0_t1.nii.gz,0_flair.nii.gz\n"
@pytest.mark.parametrize("text", [BASE, "sep=;\n" + BASE.replace(",", ";"), "sep=\t\r\n" + BASE.replace(",", "\t").replace("\n", "\r\n"), "# mine\n" + BASE, BASE.replace("\np0", "\n\n# the first; of, two\np0"),
    BASE.replace("flair.nii.gz\n", "flair.nii.gz,\n"), BASE.replace("\n", ",,\n"), BASE.replace("\n", "\r"), BASE + "\n ,, \n", BASE.replace(",", " , "), "TARGET, Source ,subject,age\n0_flair.nii.gz,0_t1.nii.gz,p0,7\n",
    "subject,source,target,lesion,split\np0,0_t1.nii.gz,0_flair.nii.gz\n".replace(",split", ""), '"subject","source","target"\n"p0", "0_t1.nii.gz","./0_flair.nii.gz"\n', "\ufeff" + BASE, "\u200b" + BASE + "\x1a"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_forms_that_are_read(folder, text, encoding):
    "Excel's sep= line, comments, empty last cells, blank lines, order and case of the header, quotes, UTF-16."
    (row,) = read_pairs(table(folder, text.removeprefix("\ufeff") if encoding == "utf-16" else text, encoding=encoding), measure=False)
    assert (row.subject, row.source.name, row.target.name, row.lesion, row.split) == ("p0", "0_t1.nii.gz", "0_flair.nii.gz", None, "train")

@pytest.mark.parametrize("text, match", [
    (BASE + BASE.splitlines()[1] + "\n", "line 3: repeats the pair of line 2"), (BASE.replace("p0", "Doe, J"), "line 2: 4 cells, the header has 3: quote names"), ("# only\n# comments\n", "is empty"),
    (BASE.replace("0_t1", "9_t1"), "line 2: source .*9_t1.nii.gz does not exist: check the path, which starts at the folder of the csv"), (BASE.replace(",0_flair.nii.gz", ""), "line 2: target is empty"),
    ("# a\nsubject;source\np;a\n", "line 2: column 'target' is missing"), (BASE.encode("utf-16-be").decode("latin-1"), "no UTF-8 text"), ("PK\3\4" + "\0" * 300, "not as a spreadsheet"),
    (BASE.replace(",", "|"), "column 'subject' is missing")])
def test_forms_that_are_refused(folder, text, match):
    with pytest.raises(VolumeError, match=match): read_pairs(table(folder, text), measure=False)

def test_names_with_the_separator(folder):
    "A quoted cell, a file in another folder, a path as Windows writes it."
    (folder / "a, b").mkdir(exist_ok=True); (folder / "a, b/Ü 1.nii.gz").write_bytes((folder / "0_t1.nii.gz").read_bytes())
    for cell in ('"a, b/Ü 1.nii.gz"', '"a, b\\Ü 1.nii.gz"'):
        (row,) = read_pairs(table(folder, f'subject,source,target\n"Doe, J",{cell},0_flair.nii.gz\n'), measure=False)
        assert row.subject == "Doe, J" and row.source.name == "Ü 1.nii.gz"
    with pytest.raises(VolumeError, match="is a folder"): read_pairs(folder)
