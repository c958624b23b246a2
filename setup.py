"Everything that packaging needs to know stands in settings.ini; this file only reads it."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
status = ["1 - Planning", "2 - Pre-Alpha", "3 - Alpha", "4 - Beta", "5 - Production/Stable", "6 - Mature", "7 - Inactive"][int(cfg["status"]) - 1]

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], keywords=cfg["keywords"].split(),
    author=cfg["author"], author_email=cfg["author_email"], license_expression="Apache-2.0", url=cfg["git_url"],
    project_urls={"Source": cfg["git_url"], "Issues": f"{cfg['git_url']}/issues",
                  "Changelog": f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md"},
    classifiers=[f"Development Status :: {status}", "Intended Audience :: Science/Research", f"Intended Audience :: {cfg['audience']}",
                 f"Natural Language :: {cfg['language']}", "Operating System :: OS Independent", "Environment :: Console", "Framework :: Jupyter",
                 *(f"Programming Language :: Python :: {v}" for v in ("3", "3 :: Only", "3.11", "3.12", "3.13")), "Typing :: Typed",
                 "Topic :: Scientific/Engineering :: Artificial Intelligence", "Topic :: Scientific/Engineering :: Image Processing",
                 "Topic :: Scientific/Engineering :: Medical Science Apps."],
    long_description=(here / "README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    packages=find_packages(include=["mrbook", "mrbook.*"]),
    package_data={"mrbook": ["py.typed", "weights/*.safetensors", "weights/manifest.json"]},
    python_requires=f">={cfg['min_python']}", install_requires=cfg["requirements"].split(),
    extras_require={name: cfg[f"{name}_requirements"].split() for name in cfg["extras"].split()},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    zip_safe=False,
)
