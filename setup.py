# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Build of mmfeataug. ``mmfeataug/.mim`` carries configs and tools, where OpenMMLab's tools look
for them.
"""

import os
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
MIM = ('configs', 'tools', 'model-index.yml')


def requirements(name: str) -> list[str]:
    """Lines of ``requirements/<name>.txt`` that name a package."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith(('#', '-'))]


class BuildWithMim(build_py):
    """Copy configs and tools into the wheel as ``mmfeataug/.mim``."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'mmfeataug' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        for name in MIM:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)


class EditableWithMim(editable_wheel):
    """Link configs and tools as ``mmfeataug/.mim``, so that an edit is seen at once."""

    def run(self) -> None:
        target = ROOT / 'mmfeataug' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for name in MIM:
            try:
                os.symlink(os.path.relpath(ROOT / name, target), target / name)
            except OSError:  # Windows without the right to link.
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
                copy(ROOT / name, target / name)
        super().run()


setup(
    name='mmfeataug',
    version=runpy.run_path(str(ROOT / 'mmfeataug' / 'version.py'))['__version__'],
    description='Robust training of detectors, segmentors and classifiers, in images and features',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='mmfeataug contributors',
    license='Apache-2.0',
    keywords='detection, segmentation, classification, robustness, adversarial training, OpenMMLab',
    packages=find_packages(include=['mmfeataug', 'mmfeataug.*']),
    package_data={'mmfeataug': ['py.typed', 'visualization/report/*.j2']},
    python_requires='>=3.10',
    install_requires=requirements('runtime'),
    extras_require={
        name: requirements(name)
        for name in (
            *('onedl', 'cls', 'robustness'),
            *('openmmlab', 'cls-openmmlab', 'robustness-openmmlab'),
            *('pretrained', 'dev'),
        )
    },
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    cmdclass={'build_py': BuildWithMim, 'editable_wheel': EditableWithMim},
    zip_safe=False,
)
