__version__ = "0.1.0"

# Before torch is imported: a thread that waits for another gives its core away (nbs/cli.ipynb, Machine).
import importlib, os, sys, warnings
from importlib.machinery import ModuleSpec
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Modules that have moved: the old path works for one release and says where to go. A package takes what is in it along.
MOVED = {
    "mrbook.learn.recipes": "mrbook.recipes",
    "mrbook.methods.dact_baselines": "mrbook.methods.dact.baselines",
    "mrbook.methods.dact_bench": "mrbook.methods.dact.scores",
    "mrbook.methods.dact_prior": "mrbook.methods.dact.prior",
    "mrbook.methods.fgsb_baselines": "mrbook.methods.fgsb.baselines",
    "mrbook.methods.fgsb_bench": "mrbook.methods.fgsb.scores",
    "mrbook.methods.fgsb_own": "mrbook.methods.fgsb.files",
    "mrbook.methods.fgsb_runs": "mrbook.methods.fgsb.recipes",
    "mrbook.methods.harmonize_baselines": "mrbook.methods.harmonize.baselines",
    "mrbook.methods.harmonize_bench": "mrbook.methods.harmonize.scores",
    "mrbook.methods.match": "mrbook.learn.loop",
    "mrbook.methods.ot_baselines": "mrbook.methods.ot.baselines",
    "mrbook.methods.ot_bench": "mrbook.methods.ot.scores",
    "mrbook.methods.ot_own": "mrbook.methods.ot.files",
    "mrbook.methods.ot_recon": "mrbook.methods.ot.ot",
    "mrbook.methods.ot_runs": "mrbook.methods.ot.recipes",
    "mrbook.methods.registry": "mrbook.registry",
    "mrbook.methods.sinkhorn_lut": "mrbook.generative.sinkhorn_lut",
    "mrbook.methods.unsb_baselines": "mrbook.methods.unsb.baselines",
    "mrbook.methods.unsb_bench": "mrbook.methods.unsb.scores",
    "mrbook.methods.unsb_dmd2": "mrbook.methods.unsb.unsb",
    "mrbook.methods.unsb_own": "mrbook.methods.unsb.files",
    "mrbook.methods.unsb_runs": "mrbook.methods.unsb.recipes",
    "mrbook.mri.cohorts": "mrbook.cohorts.subjects",
    "mrbook.mri.datasets": "mrbook.cohorts.public",
    "mrbook.mri.found": "mrbook.scans.found",
    "mrbook.mri.pairs": "mrbook.cohorts.tables",
    "mrbook.mri.preprocess": "mrbook.scans.preprocess",
    "mrbook.mri.rigid": "mrbook.scans.rigid",
    "mrbook.mri.scanners": "mrbook.cohorts.travellers",
    "mrbook.mri.synthesis_tasks": "mrbook.cohorts.missing_contrast",
    "mrbook.mri.unpaired": "mrbook.cohorts.portable",
    "mrbook.mri.volumes": "mrbook.scans.volume",
    "mrbook.pretrained": "mrbook.learn.weights",
    "mrbook.training": "mrbook.learn.loop",
}

def new_path(name:str)->str|None: # None: it has not moved
    "Where a module, or the package that it is in, has moved to."
    old = max((k for k in MOVED if f"{name}.".startswith(f"{k}.")), key=len, default=None)
    return None if old is None else MOVED[old] + name[len(old):]

class _MovedFinder:
    "An old path gives the very module at the new one, so that both paths hold the same classes."
    @staticmethod
    def find_spec(name, path=None, target=None): return ModuleSpec(name, _MovedFinder) if new_path(name) else None

    @staticmethod
    def create_module(spec): return None # an empty one, which exec_module replaces

    @staticmethod
    def exec_module(module):
        old, new = module.__name__, new_path(module.__name__)
        sys.modules[old] = importlib.import_module(new)
        text = f"{old} has moved and this path will go with the next release: import {new}"
        warnings.warn(text, DeprecationWarning, stacklevel=2)

if _MovedFinder not in sys.meta_path: sys.meta_path.insert(0, _MovedFinder)
