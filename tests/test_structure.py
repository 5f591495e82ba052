# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The rooms of the house, read from the imports: arrows go down, no circle, doors are used."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmfeataug'
ROOMS = {p.name for p in PACKAGE.iterdir() if (p / '__init__.py').exists()}
# What each room may import of the package. ``utils`` has no door of its own: its files are small
# and import each what it needs, so that ``import mmfeataug`` stays cheap.
BELOW = {
    'utils': set(),
    'functional': set(),
    'engine': {'functional', 'utils'},
    'registry': {'utils'},
    'api': {'engine', 'registry', 'utils'},
    'methods': {'engine', 'functional', 'registry', 'utils'},
    'models': {'engine', 'registry', 'functional'},
    'datasets': {'registry', 'utils'},
    'evaluation': {
        *('datasets', 'engine', 'functional', 'methods', 'models', 'registry', 'utils'),
    },
    'visualization': {
        *('engine', 'functional', 'methods', 'models', 'evaluation', 'registry', 'utils'),
        *('datasets', 'version'),
    },
    'hooks': {'api', 'engine', 'models', 'registry', 'utils', 'visualization'},
}
LIBRARIES = {
    'functional': {'torch'},
    'engine': {'torch', 'numpy'},
}


def imports(path, package=None):
    """Absolute names of the modules that a file imports from, at the top or anywhere inside."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ''
            if node.level:
                here = package or path.relative_to(ROOT).with_suffix('').parts[:-1]
                here = here[: len(here) - node.level + 1]
                name = '.'.join([*here, *filter(None, [node.module])])
            found += [name]
            # ``from mmfeataug import engine`` and ``from . import x``.
            if name == 'mmfeataug' or not node.module:
                found += [f'{name}.{alias.name}' for alias in node.names]
    return found


def files():
    return sorted(PACKAGE.rglob('*.py'))


def room_of(name):
    """The room that a dotted name of the package is in, or None."""
    head, *rest = name.split('.')
    return rest[0] if head == 'mmfeataug' and rest else None


@pytest.mark.parametrize('path', files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_go_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    others = {room_of(name) for name in imports(path)} - {None, room}
    if room in BELOW:
        assert others <= BELOW[room]


def test_every_room_has_its_floor():
    assert BELOW.keys() >= ROOMS


@pytest.mark.parametrize('room', LIBRARIES)
def test_libraries(room):
    for path in (PACKAGE / room).rglob('*.py'):
        heads = {name.partition('.')[0] for name in imports(path)}
        outside = heads - set(sys.stdlib_module_names) - {'mmfeataug'}
        assert outside <= LIBRARIES[room], path


def test_doors_are_used():
    """Nothing behind a room's ``__init__`` is imported from another room; tests of a room may."""
    wrong = []
    for folder in ('mmfeataug', 'tools', 'benchmarks'):
        for path in sorted((ROOT / folder).rglob('*.py')):
            mine = path.relative_to(ROOT).parts[1] if folder == 'mmfeataug' else None
            for name in imports(path):
                room = room_of(name)
                if room in (None, mine, 'utils') or room not in ROOMS:
                    continue
                parts = name.split('.')
                # A folder inside a room is a room with a door, too.
                inner = PACKAGE.joinpath(*parts[1:])
                if len(parts) > 2 and not (inner / '__init__.py').exists():
                    wrong.append(f'{path.relative_to(ROOT)}: {name}')
    assert wrong == []


@pytest.mark.parametrize('folder', ['mmfeataug', 'benchmarks', 'tests', 'tools'])
def test_no_circle(folder):
    """Of files, by their imports, also those inside functions and for types only."""
    paths = {p: p for p in sorted((ROOT / folder).rglob('*.py'))}
    names = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix('').parts
        parts = parts[:-1] if parts[-1] == '__init__' else parts
        names['.'.join(parts)] = path
        if folder in ('benchmarks', 'tools'):
            # Scripts import their neighbours by name.
            names[path.stem] = path
    arrows = {p: {names[n] for n in imports(p) if n in names} - {p} for p in paths}
    for path, targets in arrows.items():
        if path.name == '__init__.py':
            continue
        # A file of a room does not go out by its own door.
        own = path.parent / '__init__.py'
        arrows[path] = targets - {own}
    done, running = set(), []

    def visit(path):
        if path in running:
            circle = [p.relative_to(ROOT) for p in running[running.index(path) :]]
            raise AssertionError(' -> '.join(map(str, circle)))
        if path not in done:
            running.append(path)
            for target in sorted(arrows[path]):
                visit(target)
            done.add(running.pop())

    for path in arrows:
        visit(path)


@pytest.mark.parametrize('folder', ['tests', 'benchmarks', 'tools'])
def test_nothing_private_of_the_handle(folder):
    """Who needs more of a handle or a tap gives it a public attribute."""
    wrong = []
    for path in sorted((ROOT / folder).rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith('_'):
                owner = ast.unparse(node.value)
                private = not node.attr.startswith('__')
                if private and (owner in ('handle', 'tap') or owner.startswith('handle.')):
                    wrong.append(f'{path.relative_to(ROOT)}:{node.lineno} {owner}.{node.attr}')
    assert wrong == []
