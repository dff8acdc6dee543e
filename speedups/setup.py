"""What pyproject.toml cannot say yet: the extension, and one wheel for every Python from 3.10 on."""

from setuptools import Extension, setup

NAMES = ("module", "records", "murmur2", "counters", "accepting", "sender")

setup(
    ext_modules=[
        Extension(
            "trio_kprod_speedups._compiled",
            sources=[f"src/{name}.c" for name in NAMES],
            depends=["src/speedups.h", "src/sender.h"],
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
