"Folders as they come: BIDS with everything in it, Macs, half downloads, links, and the commands' own searches through them."
import os, warnings
from pathlib import Path
import numpy as np, pytest
from mrbook.methods.dact.dact import cohort_files
from mrbook.methods.unsb.files import scans_in
from mrbook.scans.found import is_mask, list_scans, mask_beside, one_each
from mrbook.cohorts.travellers import find_pairs
from mrbook.cohorts.portable import brain_of, find_ixi, find_zenodo
from mrbook.scans.volume import Volume, VolumeError, VolumeWarning, write_volume

def tree(root, text):
    for n in text.split():
        p = Path(root) / n.replace("%", " "); p.parent.mkdir(parents=True, exist_ok=True); p.write_bytes(b"x")
    return Path(root)

names = lambda found: [f.path.name for f in found]

def test_resource_forks_are_no_scans(tmp_path):
    "Hidden files beside every scan, for each command that takes a folder."
    flat = tree(tmp_path / "flat", "p1.nii.gz ._p1.nii.gz p2.nii.gz ._p2.nii.gz .DS_Store __MACOSX/._p1.nii.gz p3.nii.gz.part p1.nii.gz.md5")
    bids = tree(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz sub-01/anat/._sub-01_T1w.nii.gz sub-01/.git/x.nii.gz")
    travel = tree(tmp_path / "travel", "p1/15T.nii.gz p1/._15T.nii.gz p1/3T.nii.gz p1/._3T.nii.gz p1/.DS_Store")
    assert [p.name for p in cohort_files([flat])] == ["p1.nii.gz", "p2.nii.gz"]
    assert [f.low["t1w"].name for f in scans_in(flat, "low")] == ["p1.nii.gz", "p2.nii.gz"]
    assert [f.low["t1w"].name for f in scans_in(bids, "low")] == ["sub-01_T1w.nii.gz"]
    assert find_pairs(travel, ("15T", "3T")) == {"p1": (travel / "p1/15T.nii.gz", travel / "p1/3T.nii.gz", None)}

def test_bins_of_file_servers_and_backups(tmp_path):
    "Thumbnails of a file server, bins, backups of editors; a copy is of the same person."
    root = tree(tmp_path, "p1.nii.gz @eaDir/p1.nii.gz/x.nii.gz #recycle/p1.nii.gz $RECYCLE.BIN/p7.nii.gz lost+found/p9.nii.gz ~p1.nii.gz p1~.nii.gz p1%copy.nii.gz p2%(1).nii.gz p2.nii.gz")
    assert {(f.path.parent.name, f.subject) for f in list_scans(root)} == {(tmp_path.name, "p1"), (tmp_path.name, "p2")}
    with pytest.warns(VolumeWarning, match="2 further scans"): assert len(one_each(list_scans(root))) == 2

def test_parts_of_a_scan_are_no_scans(tmp_path):
    "Inversions of an MP2RAGE and phase images; the image made of them is one, and all are of one person."
    root = tree(tmp_path, "sub-1/anat/sub-1_inv-1_MP2RAGE.nii.gz sub-1/anat/sub-1_inv-2_part-phase_MP2RAGE.nii.gz sub-1/anat/sub-1_UNIT1.nii.gz sub-2/anat/sub-2_part-phase_T1w.nii.gz sub-2/anat/sub-2_part-mag_T1w.nii.gz")
    assert names(list_scans(root, "t1w")) == ["sub-1_UNIT1.nii.gz", "sub-2_part-mag_T1w.nii.gz"]

@pytest.mark.parametrize("files", ["sub-01_T1w.nii.gz sub-02_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz sub-02/anat/sub-02_T1w.nii.gz",
    "sub-01/ses-1/anat/sub-01_ses-1_run-1_T1w.nii.gz sub-02/ses-1/anat/sub-02_run-1_ses-1_T1w.NII.GZ", "rawdata/sub-01/anat/sub-01_T1w.nii sub-02_T1w.nii.gz"])
def test_bids_on_either_side(tmp_path, files):
    "BIDS names, flat or in folders, as 64 mT, as 3 T and as a cohort."
    tree(tmp_path, files + " sub-02_T2w.nii.gz") if "sub-01/" not in files else tree(tmp_path, files)
    for side in ("low", "high"):
        found = scans_in(tmp_path, side)
        assert [f.id for f in found] == ["sub-01", "sub-02"] and all(getattr(f, side)["t1w"].is_file() for f in found)
    assert len(cohort_files([tmp_path], "t1w")) == 2

def test_only_sub_folders_are_people(tmp_path):
    root = tree(tmp_path, "sub-01/ses-15T/anat/sub-01_ses-15T_T1w.nii.gz sub-01/ses-3T/anat/sub-01_ses-3T_T1w.nii.gz sub-01/ses-3T/anat/sub-01_ses-3T_T2w.nii.gz "
        "code/15T.nii.gz sourcedata/sub-01/3T.nii.gz derivatives/strip/sub-09/anat/sub-09_T1w.nii.gz phenotype/a.tsv sub-01/ses-3T/func/sub-01_ses-3T_bold.nii.gz participants.tsv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [p.name for p in find_pairs(root, ("15T", "3T"))["sub-01"][:2]] == ["sub-01_ses-15T_T1w.nii.gz", "sub-01_ses-3T_T1w.nii.gz"]
    assert {f.subject for f in list_scans(root)} == {"sub-01"}
    assert [f.subject for f in list_scans(root / "derivatives")] == ["sub-09"], "asked for by name"
    (root / "sub-01/ses-3T/anat/sub-01_ses-3T_run-2_T1w.nii.gz").write_bytes(b"x")
    with pytest.warns(VolumeWarning, match="2 files marked '3T'.*the first is used"): pair = find_pairs(root, ("15T", "3T"))
    assert pair["sub-01"][1].name == "sub-01_ses-3T_T1w.nii.gz"

def test_folders_without_scans_are_nobody(tmp_path):
    root = tree(tmp_path, "p1/1.5T.nii.gz p1/3T.nii.gz p1/brain_mask.nii.gz scripts/run.py figures/a.png")
    assert find_pairs(root) == {"p1": (root / "p1/1.5T.nii.gz", root / "p1/3T.nii.gz", root / "p1/brain_mask.nii.gz")}

def test_the_mask_of_the_other_scanner_is_not_taken(tmp_path):
    root = tree(tmp_path, "p1/1.5T.nii.gz p1/3T.nii.gz p1/3T_mask.nii.gz p2/1.5T_brain.nii.gz p2/1.5T.nii.gz p2/3T_brain.nii.gz p2/1.5T_brain_mask.nii.gz p2/3T_mask.nii.gz")
    found = find_pairs(root)
    assert found["p1"][2] is None and [p.name for p in found["p2"]] == ["1.5T_brain.nii.gz", "3T_brain.nii.gz", "1.5T_brain_mask.nii.gz"]

def test_flat_pairs(tmp_path):
    root = tree(tmp_path, "p1_15T.nii.gz p1_3T.nii.gz p2_15T.nii.gz p2_3T.nii.gz p2_15T_mask.nii.gz")
    found = find_pairs(root, ("15T", "3T"))
    assert {k: [p and p.name for p in v] for k, v in found.items()} == {"p1": ["p1_15T.nii.gz", "p1_3T.nii.gz", None], "p2": ["p2_15T.nii.gz", "p2_3T.nii.gz", "p2_15T_mask.nii.gz"]}

def test_first_run_of_the_first_session(tmp_path):
    root = tree(tmp_path, " ".join(f"sub-01/ses-{s}/anat/sub-01_run-{r}_ses-{s}_T1w.nii.gz" for s in (10, 2) for r in (10, 9)))
    with pytest.warns(VolumeWarning, match="3 further scans"): found = one_each(list_scans(root, "t1w"))
    assert names(found) == ["sub-01_run-9_ses-2_T1w.nii.gz"]

def test_a_stated_field_is_believed(tmp_path):
    "The Zenodo set, sessions named after fields, IXI's sites."
    zenodo = tree(tmp_path / "z", "Data/64mT%data/sub-01/anat/sub-01_T1w.nii.gz Data/3T%data/sub-01/anat/sub-01_T1w.nii.gz Data/3T%data/sub-02/anat/sub-02_acq-highres_T1w.nii.gz")
    ses = tree(tmp_path / "s", "sub-01/ses-64mT/anat/sub-01_ses-64mT_T1w.nii.gz sub-01/ses-3T/anat/sub-01_ses-3T_T1w.nii.gz")
    ixi = tree(tmp_path / "i", "IXI-T1/IXI012-HH-1211-T1.nii.gz IXI-T1/IXI002-Guys-0828-T1.nii.gz IXI-T1/._IXI012-HH-1211-T1.nii.gz")
    for root in (zenodo, ses):
        assert all("64mT" in str(f.low["t1w"].relative_to(root)) for f in scans_in(root, "low")) and all("3T" in str(f.high["t1w"].relative_to(root)) for f in scans_in(root, "high"))
    assert [(f.id, len(f.low), len(f.high)) for f in find_zenodo(zenodo, ("t1w",))] == [("sub-01", 1, 1), ("sub-02", 0, 1)]
    assert [f.id for f in scans_in(ixi, "high")] == [f.id for f in find_ixi(ixi, weightings=("t1w",))] == ["IXI012-HH-1211"]
    with pytest.raises(VolumeError, match="say another field strength"): scans_in(ixi, "low")

def test_links_spaces_and_letters(tmp_path):
    "A DataLad clone without its content, a link to a scan, names with blanks and accents, a circle of links."
    root = tree(tmp_path, "store/a b.nii.gz".replace(" ", "%")); cohort = tmp_path / "Zoë 1"; cohort.mkdir()
    os.symlink(root / "store/a b.nii.gz", cohort / "Jürgen Ü t1.nii.gz"); os.symlink(cohort, cohort / "circle")
    assert names(list_scans(cohort)) == ["Jürgen Ü t1.nii.gz"]
    os.symlink("nowhere", cohort / "p2_t1.nii.gz")
    with pytest.warns(VolumeWarning, match="1 of 2 files .* datalad get"): assert len(list_scans(cohort)) == 1
    (cohort / "Jürgen Ü t1.nii.gz").unlink()
    with pytest.raises(VolumeError, match="1 of 1 files"): list_scans(cohort)

@pytest.mark.parametrize("call", [lambda p: cohort_files([p]), lambda p: scans_in(p, "low"), find_pairs, find_zenodo, find_ixi])
def test_empty_and_no_folder(tmp_path, call):
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolumeError, match="holds no"): call(tmp_path / "empty")
    with pytest.raises(VolumeError, match="does not exist|not a folder"): call(tmp_path / "nowhere")

def test_one_contrast_for_a_cohort(tmp_path):
    root = tree(tmp_path, "p1_t1.nii.gz p1_t2.nii.gz p2_t1.nii.gz p2_brain_mask.nii.gz")
    assert [p.name for p in cohort_files([root], "t1w")] == ["p1_t1.nii.gz", "p2_t1.nii.gz"]
    with pytest.raises(VolumeError, match="t1w and t2w: a cohort is of one contrast"): cohort_files([root])
    with pytest.raises(VolumeError, match="of flair"): cohort_files([root], "flair")

@pytest.mark.parametrize("scan, mask, other", [("p1_t1.nii.gz", "p1_t1_mask.nii.gz", "p10_t1_mask.nii.gz"), ("sub-1_desc-preproc_T1w.nii.gz", "sub-1_desc-brain_mask.nii.gz", "sub-1_label-lesion_mask.nii.gz"),
    ("p1.nii.gz", "p1_brain_mask.nii.gz", "._p1_brain_mask.nii.gz"), ("p1_T1_brain.nii.gz", "p1_T1_brain_mask.nii.gz", "p1_T2_mask.nii.gz"), ("t1.nii.gz", "mask.nii.gz", "brain.nii.gz"),
    ("sub-1_ses-1_T1w.nii.gz", "sub-1_ses-1_desc-brain_mask.nii.gz", "sub-1_ses-2_desc-brain_mask.nii.gz")])
def test_the_file_beside_a_scan(tmp_path, scan, mask, other):
    root = tree(tmp_path, f"{scan} {other}")
    assert mask_beside(root / scan) is None
    (root / mask).write_bytes(b"x"); assert mask_beside(root / scan).name == mask and is_mask(mask) and not is_mask(scan)

def test_a_fork_is_not_read_as_mask(tmp_path):
    ball = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0) < 15
    scan = Volume(ball * 100. + 5, np.diag([4., 4, 4, 1])); write_volume(scan, tmp_path / "p1.nii.gz")
    write_volume(scan.replace(data=ball), tmp_path / "p1_mask.nii.gz"); (tmp_path / "._p1_mask.nii.gz").write_bytes(bytes(100))
    assert np.array_equal(brain_of(tmp_path / "p1.nii.gz", scan), ball)

@pytest.mark.parametrize("files, people", [
    ("BraTS_001/BraTS_001_t1n.nii.gz BraTS_001/BraTS_001_t2f.nii.gz BraTS_001/BraTS_001_seg.nii.gz", [("BraTS_001", "t1w"), ("BraTS_001", "flair")]),
    ("P18/T1/P18_T1_FLAIR.nii.gz P18/T1/P18_T1_T1.nii.gz P18/T1/P18_T1_MASK.nii.gz", [("P18/T1", "flair"), ("P18/T1", "t1w")]),
    ("patient03/study1_T1W.nii.gz patient03/study2_T1W.nii.gz patient03/gt.nii.gz patient03/brain_mask.nii.gz", [("patient03", "t1w")] * 2),
    ("a/T1_N4_regtoFLAIR_brain_N4.nii.gz a/FLAIR_N4_regtoFLAIR_brain_N4.nii.gz a/GOLD_STANDARD_N4.nii.gz", [("a", "flair"), ("a", "t1w")]),
    ("visit1_t1.nii.gz visit2_t1.nii.gz", [("visit1_t1", "t1w"), ("visit2_t1", "t1w")]),
    ("p1_t1_bet.nii.gz p1_t1_bet_mask.nii.gz P2_MPRAGE.NII", [("p1", "t1w"), ("p2", "t1w")])])
def test_names_of_public_cohorts(tmp_path, files, people):
    assert [(f.subject, f.contrast) for f in list_scans(tree(tmp_path, files))] == people
