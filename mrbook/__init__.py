__version__ = "0.1.0"

# Before torch is imported: a thread that waits for another gives its core away (nbs/cli.ipynb, Machine).
import importlib, os, sys, warnings
from importlib.machinery import ModuleSpec
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Modules that have moved: the old path works for one release and says where to go. A package takes what is in it along.
MOVED = {
    "mrbook.methods.sinkhorn_lut": "mrbook.generative.sinkhorn_lut",
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
