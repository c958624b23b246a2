"What `mrbook.methods.dact.dact` exports is found here as well."
from importlib import import_module


def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return getattr(import_module(f"{__name__}.dact"), name)
