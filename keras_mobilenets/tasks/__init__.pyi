from .classification import Classification as Classification
from .known import TASKS as TASKS
from .known import task_of as task_of
from .task import Spec as Spec
from .task import Task as Task
