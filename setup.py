"""Packages of the wheel, which carries the cards of `configs/` as `mexjax/configs/`.

Everything else about the package is in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mexjax*"]), "mexjax.configs"],
    package_dir={"mexjax.configs": "configs"},
)
