"""What is predicted: one of several classes, any number of labels, or a number. A new task is a class and a line in TASKS.

base     the interface, and what an opinion and an answer are
classes  one of C classes
labels   any subset of C labels
number   a real number
"""

from collections.abc import Mapping
from typing import Any

from mla_serve.tasks.base import Bounds, Label, Task
from mla_serve.tasks.classes import Classes
from mla_serve.tasks.labels import Labels
from mla_serve.tasks.number import Number

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classes, Labels, Number)}


def task_from_dict(fields: Mapping[str, Any]) -> Task:
    """Rebuild a task from what `Task.to_dict` returned. Raises: KeyError or TypeError for anything else."""
    rest = dict(fields)
    return TASKS[rest.pop("name")].from_fields(rest)


__all__ = ["TASKS", "Bounds", "Classes", "Label", "Labels", "Number", "Task", "task_from_dict"]
