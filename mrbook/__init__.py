__version__ = "0.1.0"

# Before torch is imported: a thread that waits for another gives its core away (nbs/cli.ipynb, Machine).
import os
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
